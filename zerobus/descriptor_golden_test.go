package zerobus_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

var update = flag.Bool("update", false, "write testdata/descriptors/ours.txtpb")

const descriptorsDir = "testdata/descriptors/"

// TestDescriptorsOfFourBuilders compares our descriptor of table.sql with those
// that protoc and Databricks' own builder make of the same columns. Names and
// numbers of fields, their types, labels and nesting must be the same. The
// service ignores what may differ: the package, names and order of nested
// messages, json_name, proto3_optional with its oneofs. In proto3, which has no
// required fields, the label of NOT NULL columns may differ too.
//
// proto2.binpb and proto3.binpb are protoc's:
//
//	protoc --descriptor_set_out=proto2.binpb proto2.proto
//	protoc --descriptor_set_out=proto3.binpb proto3.proto
//
// official.txtpb names in its header how it was generated. ours.txtpb is written by
// this test, with -update.
func TestDescriptorsOfFourBuilders(t *testing.T) {
	ours := ourDescriptor(t)
	if *update {
		text := "# What this package makes of table.sql. Written by\n# go test ./zerobus -run TestDescriptorsOfFourBuilders -update\n\n" + prototext.Format(ours)
		if err := os.WriteFile(descriptorsDir+"ours.txtpb", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if golden := readDescriptor(t, "ours.txtpb"); !proto.Equal(ours, golden) {
		t.Errorf("our descriptor has changed; write it with -update where that is meant. Got\n%s", prototext.Format(ours))
	}
	for _, c := range []struct {
		file    string
		pkg     string // of the file it was compiled in
		relabel *strings.Replacer
	}{
		{"ours.txtpb", "", strings.NewReplacer()},
		{"official.txtpb", "", strings.NewReplacer()},
		{"proto2.binpb", "com.example.events.v1", strings.NewReplacer()},
		{"proto3.binpb", "", strings.NewReplacer(" required ", " optional ")},
	} {
		t.Run(c.file, func(t *testing.T) {
			d := readDescriptor(t, c.file)
			got, want := form(t, d, c.pkg), form(t, ours, "")
			for i := range want {
				want[i] = c.relabel.Replace(want[i])
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// ourDescriptor is what the client makes of the columns as Unity Catalog
// answers them.
func ourDescriptor(t *testing.T) *descriptorpb.DescriptorProto {
	t.Helper()
	ddl, err := os.ReadFile(descriptorsDir + "table.sql")
	if err != nil {
		t.Fatal(err)
	}
	l := atEmulator(t, emulator.Config{DDL: string(ddl)})
	cols, err := l.Columns(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := l.Descriptor(cols)
	if err != nil {
		t.Fatal(err)
	}
	d := &descriptorpb.DescriptorProto{}
	if err := proto.Unmarshal(text, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// atEmulator starts an emulator and a client of its gRPC endpoint.
func atEmulator(t *testing.T, cfg emulator.Config) *zerobus.Client {
	t.Helper()
	em, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, em) })
	if err := em.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := em.StartZerobus("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	c, err := zerobus.New(zerobus.Config{Settings: zerobus.Settings{
		WorkspaceURL: em.URL(), ClientID: emulator.DefaultClientID, WorkspaceID: emulator.DefaultWorkspaceID,
		ClientSecret: emulator.DefaultClientSecret, Table: "datafly.events.stream",
		Transport: "grpc", Endpoint: em.ZerobusURL(),
	}}, nopLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func readDescriptor(t *testing.T, file string) *descriptorpb.DescriptorProto {
	t.Helper()
	text, err := os.ReadFile(descriptorsDir + file)
	if err != nil {
		t.Fatal(err)
	}
	d, set := &descriptorpb.DescriptorProto{}, &descriptorpb.FileDescriptorSet{}
	if strings.HasSuffix(file, ".txtpb") {
		err = prototext.Unmarshal(text, d)
	} else if err = proto.Unmarshal(text, set); err == nil {
		d = set.GetFile()[0].GetMessageType()[0]
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return d
}

// form writes the fields of a descriptor, those of nested messages where they
// are used, sorted by path. A type name that is not the full name of a message
// nested in d is an error.
func form(t *testing.T, d *descriptorpb.DescriptorProto, pkg string) []string {
	t.Helper()
	types := map[string]*descriptorpb.DescriptorProto{}
	var gather func(scope string, d *descriptorpb.DescriptorProto)
	gather = func(scope string, d *descriptorpb.DescriptorProto) {
		types[scope+"."+d.GetName()] = d
		for _, inner := range d.GetNestedType() {
			gather(scope+"."+d.GetName(), inner)
		}
	}
	if pkg != "" {
		pkg = "." + pkg
	}
	gather(pkg, d)
	var out []string
	var walk func(path string, d *descriptorpb.DescriptorProto)
	walk = func(path string, d *descriptorpb.DescriptorProto) {
		for _, f := range d.GetField() {
			label := strings.ToLower(strings.TrimPrefix(f.GetLabel().String(), "LABEL_"))
			typ := strings.ToLower(strings.TrimPrefix(f.GetType().String(), "TYPE_"))
			inner := types[f.GetTypeName()]
			switch {
			case typ == "message" && inner == nil:
				t.Fatalf("field %s%s is of type %q, which is not nested in the message", path, f.GetName(), f.GetTypeName())
			case inner.GetOptions().GetMapEntry():
				typ = "map entry"
			}
			out = append(out, fmt.Sprintf("%s%s = %d: %s %s", path, f.GetName(), f.GetNumber(), label, typ))
			if inner != nil {
				walk(path+f.GetName()+".", inner)
			}
		}
	}
	walk("", d)
	slices.Sort(out)
	return out
}

// TestNestedTypesAreNamedInFull wants names that begin with a dot and the
// message, at any depth and whatever names collide.
func TestNestedTypesAreNamedInFull(t *testing.T) {
	c := atEmulator(t, emulator.Config{})
	for _, tt := range []struct {
		delta string // of column c
		want  string
	}{
		{"STRUCT<a:INT>", ".EventsStream.C"},
		{"ARRAY<STRUCT<a:INT>>", ".EventsStream.C"},
		{"MAP<STRING,INT>", ".EventsStream.CEntry"},
		{"MAP<STRING,STRUCT<a:INT>>", ".EventsStream.CEntry .EventsStream.CValue"},
		{"STRUCT<a:STRUCT<b:STRUCT<x:INT>>>", ".EventsStream.C .EventsStream.C.A .EventsStream.C.A.B"},
		{"STRUCT<a:MAP<INT,STRUCT<b:ARRAY<STRUCT<x:INT>>>>>", ".EventsStream.C .EventsStream.C.AEntry .EventsStream.C.AValue .EventsStream.C.AValue.B"},
		{"MAP<STRING,STRUCT<a:MAP<STRING,STRUCT<x:INT>>>>", ".EventsStream.CEntry .EventsStream.CValue .EventsStream.CValue.AEntry .EventsStream.CValue.AValue"},
		{"STRUCT<C:STRUCT<x:INT>,c:STRUCT<x:INT>>", ".EventsStream.C .EventsStream.C.C2 .EventsStream.C.C3"},
		{"STRUCT<events_stream:STRUCT<x:INT>>", ".EventsStream.C .EventsStream.C.EventsStream"},
	} {
		text, err := c.Descriptor([]zerobus.Column{col(0, "c", tt.delta)})
		if err != nil {
			t.Fatalf("%s: %v", tt.delta, err)
		}
		resolve(t, text)
		d := &descriptorpb.DescriptorProto{}
		if err := proto.Unmarshal(text, d); err != nil {
			t.Fatal(err)
		}
		var names []string
		var gather func(*descriptorpb.DescriptorProto)
		gather = func(d *descriptorpb.DescriptorProto) {
			for _, f := range d.GetField() {
				if f.TypeName != nil {
					names = append(names, f.GetTypeName())
				}
			}
			for _, inner := range d.GetNestedType() {
				gather(inner)
			}
		}
		gather(d)
		slices.Sort(names)
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.delta, got, tt.want)
		}
	}
}

// TestNestedTypesHaveTheirSQLNames reads columns whose nested types Unity
// Catalog describes in Spark's words, and wants rows made for the types as a
// blueprint writes them to fit.
func TestNestedTypesHaveTheirSQLNames(t *testing.T) {
	c := atEmulator(t, emulator.Config{DDL: `CREATE TABLE datafly.events.stream (
		st STRUCT<a: TINYINT, b: SMALLINT NOT NULL, c: INT, d: BIGINT, e: TIMESTAMP, integer: INT>, m MAP<INT,BIGINT>, l ARRAY<STRUCT<x: INT>>)`})
	cols, err := c.Columns(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"STRUCT<a:TINYINT,b:SMALLINT NOT NULL,c:INT,d:BIGINT,e:TIMESTAMP,integer:INT>", "MAP<INT,BIGINT>", "ARRAY<STRUCT<x:INT>>"}
	for i, col := range cols {
		if col.Type != want[i] {
			t.Errorf("column %s: got %s, want %s", col.Name, col.Type, want[i])
		}
		cols[i].Type = want[i]
	}
	c.SetRowColumns(cols)
	if err := c.CheckColumns(t.Context()); err != nil {
		t.Errorf("CheckColumns: %v, want columns that fit", err)
	}
}
