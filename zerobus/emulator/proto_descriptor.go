package emulator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// rowDescriptor is the descriptor_proto of a create request, resolved.
type rowDescriptor struct {
	message protoreflect.MessageDescriptor
	entries map[protoreflect.FullName]bool // nested messages that are entries of a map
}

// notSelfContained lists the fields whose type is not found in the descriptor
// by its full name.
type notSelfContained struct {
	fields []*descriptorpb.FieldDescriptorProto
}

// Error has the service's wording, one field a line.
func (e *notSelfContained) Error() string {
	lines := []string{"Proto validation error:"}
	for _, f := range e.fields[:min(len(e.fields), 20)] {
		lines = append(lines, numbered(fmt.Sprintf("Proto not self-contained for field '%s' with type name '%s'",
			printable(f.GetName()), printable(f.GetTypeName())), codeNotSelfContained, stateOfTypeName))
	}
	return strings.Join(lines, "\n  ")
}

// maxNesting bounds the messages nested in a descriptor.
const maxNesting = 100

// readDescriptor resolves the descriptor_proto of a create request. It must be
// self-contained: a type that a field names is nested in the message and named
// in full, with or without a package in front. The message's name, the package
// and the syntax it was written in mean nothing.
func readDescriptor(b []byte) (*rowDescriptor, error) {
	d := &descriptorpb.DescriptorProto{}
	if err := proto.Unmarshal(b, d); err != nil {
		return nil, errors.New("descriptor_proto is not a serialized google.protobuf.DescriptorProto")
	}
	if d.GetName() == "" {
		d.Name = proto.String("Row")
	}
	n := nested{types: map[string]bool{}, entries: map[string]bool{}}
	if !n.collect(d, d.GetName(), maxNesting) {
		return nil, fmt.Errorf("descriptor_proto nests messages deeper than %d", maxNesting)
	}
	pkg, unresolved := n.resolve(d.GetName())
	if len(unresolved) > 0 {
		return nil, &notSelfContained{unresolved}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("row.proto"), Syntax: proto.String("proto2"), MessageType: []*descriptorpb.DescriptorProto{d},
	}
	if pkg != "" {
		file.Package = proto.String(pkg)
		pkg += "."
	}
	resolved, err := protodesc.NewFile(file, nil)
	if err != nil {
		return nil, fmt.Errorf("descriptor_proto is not a valid message: %s", strings.ToValidUTF8(err.Error(), "?"))
	}
	out := &rowDescriptor{message: resolved.Messages().Get(0), entries: map[protoreflect.FullName]bool{}}
	for name := range n.entries {
		out.entries[protoreflect.FullName(pkg+name)] = true
	}
	return out, nil
}

// nested is what a descriptor holds at any depth. Names begin with that of the
// outermost message, without a package.
type nested struct {
	types   map[string]bool // messages and enums
	entries map[string]bool // messages that are entries of a map
	named   []*descriptorpb.FieldDescriptorProto
}

// collect gathers what d, called name, holds. On the way it takes out of d
// what does not change the wire form and would have protodesc refuse what
// official builders send: proto3_optional and its oneofs, which need a file in
// proto3, where no field is required; and the mark of a map's entry, which
// needs a name that protoc derives from the field's and Databricks' own
// builder does not inside a STRUCT. It reports whether depth was enough.
func (n *nested) collect(d *descriptorpb.DescriptorProto, name string, depth int) bool {
	if depth < 0 {
		return false
	}
	n.types[name] = true
	for _, e := range d.GetEnumType() {
		n.types[name+"."+e.GetName()] = true
	}
	d.OneofDecl = nil
	for _, f := range d.GetField() {
		f.Proto3Optional, f.OneofIndex = nil, nil
		switch f.GetType() {
		case descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, descriptorpb.FieldDescriptorProto_TYPE_GROUP, descriptorpb.FieldDescriptorProto_TYPE_ENUM:
			n.named = append(n.named, f)
		default:
			if f.Type == nil && f.TypeName != nil { // the type is what the name leads to
				n.named = append(n.named, f)
			}
		}
	}
	if d.GetOptions().GetMapEntry() {
		n.entries[name] = true
		d.Options.MapEntry = nil
	}
	for _, inner := range d.GetNestedType() {
		if !n.collect(inner, name+"."+inner.GetName(), depth-1) {
			return false
		}
	}
	return true
}

// resolve finds the package with which the fields' type names lead to types of
// the descriptor, whose outermost message is root. It returns the fields for
// which no package does, or not the one that serves the most fields.
func (n *nested) resolve(root string) (pkg string, unresolved []*descriptorpb.FieldDescriptorProto) {
	unresolved = n.unresolved("")
	tried := []string{""}
	for _, f := range n.named {
		parts := strings.Split(f.GetTypeName(), ".")
		for i := 2; i < len(parts); i++ { // the first is empty: the name begins with a dot
			candidate := strings.Join(parts[1:i], ".")
			if parts[i] != root || slices.Contains(tried, candidate) || !protoreflect.FullName(candidate).IsValid() {
				continue
			}
			tried = append(tried, candidate)
			if rest := n.unresolved(candidate); len(rest) < len(unresolved) {
				pkg, unresolved = candidate, rest
			}
		}
		if len(unresolved) == 0 || len(tried) > 20 {
			break
		}
	}
	return pkg, unresolved
}

// unresolved are the fields whose type is not found in the descriptor when its
// messages are in the package pkg.
func (n *nested) unresolved(pkg string) []*descriptorpb.FieldDescriptorProto {
	prefix := "."
	if pkg != "" {
		prefix += pkg + "."
	}
	var out []*descriptorpb.FieldDescriptorProto
	for _, f := range n.named {
		if name, ok := strings.CutPrefix(f.GetTypeName(), prefix); !ok || !n.types[name] {
			out = append(out, f)
		}
	}
	return out
}
