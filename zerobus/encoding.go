package zerobus

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"

	"go.uber.org/zap"
	grpcencoding "google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/delta"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// Encoding is the form of the rows that Write takes.
type Encoding struct {
	// Format is FormatJSON, one JSON object per row whose keys are column names, or
	// FormatProtobuf, one proto2 message per row.
	Format string
	// Numbers holds the field number of each column under protobuf; nil under json. Fields
	// of a STRUCT are numbered from 1 in their order; key and value of a MAP are 1 and 2.
	Numbers map[string]int32
}

// Encoding chooses the form of rows for the table's columns, as Columns returns them; nil if
// they are not known. Call it before the first Write, and whenever the columns have changed.
// The new form is used from the next SetRowColumns on. Until then rows keep the old one.
//
// The first call fixes the format, as long as the transport stays. Under auto it is json if Columns has found a rescue
// column. A field number is never given to another column, so a row encoded before a change
// cannot be misread after it. If the table's columns cannot be protobuf, auto falls back to
// json, and protobuf is an error that IsPermanent reports.
func (c *Client) Encoding(cols []Column) (Encoding, error) {
	c.watch.choose(cols)
	c.rows.mu.Lock()
	r := c.current.Load()
	c.rows.encodedFor = r
	c.rows.mu.Unlock()
	if r.grpc == nil {
		return Encoding{Format: FormatJSON}, nil
	}
	return r.grpc.encode(cols)
}

// encoding is what a stream is opened for. It does not change once it is in use.
type encoding struct {
	format     string
	descriptor []byte // of the message that is a row; nil under json
}

// fieldNumbers are the field numbers given so far.
type fieldNumbers struct {
	mu      sync.Mutex // guards the fields below
	format  string     // empty: not chosen yet
	columns map[string]fieldNumber
	taken   map[int32]bool
	current map[string]int32 // of the columns in use
	next    *encoding        // chosen and not active; nil: none
	rescue  rescue           // as found before the format was chosen
}

// fieldNumber is a field number and the form of the values it stands for.
type fieldNumber struct {
	number int32
	form   string
}

// protobufForm distinguishes types whose values have different protobuf encodings. A column
// that was only widened keeps its number.
func protobufForm(typ string) string {
	if form := valueForm(typ); form != "float" {
		return form
	}
	return typ // FLOAT takes four bytes, DOUBLE eight
}

// activate opens streams with the chosen encoding from now on.
func (t *grpcTransport) activate() {
	n := &t.fields
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := t.encoding.Load(); n.next != nil && (now.format != n.next.format || !bytes.Equal(now.descriptor, n.next.descriptor)) {
		t.encoding.Store(n.next)
	}
	n.next = nil
}

func (t *grpcTransport) encode(cols []Column) (Encoding, error) {
	n := &t.fields
	n.mu.Lock()
	defer n.mu.Unlock()
	inJSON := Encoding{Format: FormatJSON}
	want := cmp.Or(n.format, t.c.set.RecordFormat)
	switch {
	case want == FormatJSON, want == FormatAuto && len(cols) == 0:
		n.format = FormatJSON
		return inJSON, nil
	case len(cols) == 0 && n.current != nil:
		return Encoding{Format: FormatProtobuf, Numbers: maps.Clone(n.current)}, nil
	case len(cols) == 0:
		return Encoding{}, notProtobuf(errors.New("they are not known"), t.c.rem.names[opColumns].Replace(grantRead))
	case want == FormatAuto && n.rescue.column != "":
		n.format = FormatJSON
		t.c.log.Info("rows are sent as JSON, since the rescue column takes nothing from protobuf rows",
			zap.String("column", databricks.Clean(n.rescue.column, 255)), zap.String("tag", rescueTag))
		return inJSON, nil
	}
	numbers, given, taken, err := n.assign(cols)
	var descriptor []byte
	if err == nil {
		descriptor, err = t.descriptor(cols, numbers)
	}
	switch {
	case err != nil && want == FormatAuto:
		n.format = FormatJSON
		t.c.log.Info("rows are sent as JSON, since protobuf cannot hold the table's columns", zap.Error(err))
		return inJSON, nil
	case err != nil:
		return Encoding{}, notProtobuf(err, "change the column, or set zerobus.record_format to json")
	case n.format == "" && want == FormatProtobuf && n.rescue.column != "":
		t.c.log.Warn("rows are sent as protobuf, of which the rescue column takes nothing: fields that do not fit the table are refused",
			zap.String("column", databricks.Clean(n.rescue.column, 255)), zap.String("remedy", "set zerobus.record_format to auto"))
	case want == FormatAuto && n.rescue.err != nil: // logged once, since the format is now chosen
		t.c.log.Info("rows are sent as protobuf, and whether the table has a rescue column is not known", zap.Error(n.rescue.err),
			zap.String("remedy", "set zerobus.record_format to json if a column has the tag "+rescueTag))
	}
	n.format, n.columns, n.taken, n.current = FormatProtobuf, given, taken, numbers
	n.next = &encoding{format: FormatProtobuf, descriptor: descriptor}
	return Encoding{Format: FormatProtobuf, Numbers: maps.Clone(numbers)}, nil
}

func (t *grpcTransport) descriptor(cols []Column, numbers map[string]int32) ([]byte, error) {
	message, err := describe(t.c.set.table, cols, numbers)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(message)
}

func notProtobuf(err error, remedy string) *Error {
	return &Error{Op: opColumns, Err: err, kind: configuration, Meaning: "the table's columns cannot be carried as protobuf", Remedy: remedy}
}

// assign returns a number for each column: its position counted from 1, unless another
// column or type had that before. given and taken are the state afterwards; nothing is
// changed yet. Called with mu held.
func (n *fieldNumbers) assign(cols []Column) (numbers map[string]int32, given map[string]fieldNumber, taken map[int32]bool, err error) {
	numbers, given, taken = make(map[string]int32, len(cols)), map[string]fieldNumber{}, map[int32]bool{}
	maps.Copy(given, n.columns)
	maps.Copy(taken, n.taken)
	positions := map[int]string{}
	var fresh []Column
	for _, c := range cols {
		if other, twice := positions[c.Position]; twice {
			return nil, nil, nil, fmt.Errorf("columns %q and %q are both at position %d", databricks.Clean(other, 255), databricks.Clean(c.Name, 255), c.Position)
		}
		positions[c.Position] = c.Name
		if had, ok := given[c.Name]; ok && had.form == protobufForm(c.Type) {
			numbers[c.Name] = had.number
		} else {
			fresh = append(fresh, c)
		}
	}
	for _, c := range fresh {
		number := int32(min(c.Position+1, 1<<29-1)) // the largest number in protobuf
		for next := int32(1); taken[number]; {
			if number = next; number == reservedFrom {
				number = reservedTo + 1
			}
			next = number + 1
		}
		taken[number] = true
		numbers[c.Name], given[c.Name] = number, fieldNumber{number, protobufForm(c.Type)}
	}
	return numbers, given, taken, nil
}

const (
	// maxMessage is the largest message that Databricks' own clients send: the service's
	// limit of 10 MiB less 64 KiB.
	maxMessage = 10<<20 - 64<<10

	// chunk is the size of the pieces a message is copied into: the largest below 1 MiB in
	// gRPC's pool. A frame on the connection is half.
	chunk = 32 << 10

	// headMax bounds the bytes before the rows: three tags, two lengths and an offset.
	headMax = 3 + 2*5 + 10
)

// message is one batch on a stream. The rows are copied once, into pooled pieces that gRPC
// gives back when they are sent: it may hold a message after Write has returned.
type message struct {
	json    bool
	rows    int
	size    int // of body
	body    mem.BufferSlice
	offset  int64
	sent    bool       // gRPC took it, whole
	done    chan error // takes the outcome; never blocks
	release func()     // called once when the stream is done with it
}

// newMessage encodes rows as the batch of a message: a repeated field 1.
func newMessage(rows [][]byte, json bool, release func()) *message {
	m := &message{json: json, rows: len(rows), size: bodySize(rows), done: make(chan error, 1), release: release}
	w := chunkWriter{left: m.size}
	var head [1 + 10]byte
	for _, row := range rows {
		w.write(protowire.AppendVarint(append(head[:0], 1<<3|byte(protowire.BytesType)), uint64(len(row))))
		w.write(row)
	}
	m.body = w.out // the last piece was cut to size
	return m
}

// bodySize returns the bytes of the repeated field.
func bodySize(rows [][]byte) int {
	n := 0
	for _, row := range rows {
		n += 1 + protowire.SizeBytes(len(row))
	}
	return n
}

// chunkWriter fills pooled pieces.
type chunkWriter struct {
	left int // bytes still to come
	out  mem.BufferSlice
	cur  *[]byte
	n    int // bytes in cur
}

func (w *chunkWriter) write(p []byte) {
	w.left -= len(p)
	for len(p) > 0 {
		if w.cur == nil {
			w.cur, w.n = mem.DefaultBufferPool().Get(min(chunk, len(p)+w.left)), 0
		}
		c := copy((*w.cur)[w.n:], p)
		p, w.n = p[c:], w.n+c
		if w.n == len(*w.cur) {
			w.out, w.cur = append(w.out, mem.NewBuffer(w.cur, mem.DefaultBufferPool())), nil
		}
	}
}

// head returns the bytes before the body:
//
//	EphemeralStreamRequest.ingest_record_batch (3) {
//	  IngestRecordBatchRequest.offset_id (1)
//	  IngestRecordBatchRequest.proto_encoded_batch (2) or json_batch (3) { body }
//	}
func (m *message) head() []byte {
	field := protowire.Number(2)
	if m.json {
		field = 3
	}
	in := make([]byte, 0, headMax)
	in = protowire.AppendTag(in, 1, protowire.VarintType)
	in = protowire.AppendVarint(in, uint64(m.offset))
	in = protowire.AppendTag(in, field, protowire.BytesType)
	in = protowire.AppendVarint(in, uint64(m.size))

	out := make([]byte, 0, headMax)
	out = protowire.AppendTag(out, 3, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(len(in)+m.size))
	return append(out, in...)
}

// drop gives the pieces back unsent.
func (m *message) drop() {
	m.body.Free()
	m.body = nil
	m.release()
}

// codec carries messages as they are, and everything else as protobuf.
type codec struct{}

var _ grpcencoding.CodecV2 = codec{}

// Name is empty so that the content type is plain application/grpc.
func (codec) Name() string { return "" }

// Marshal hands a message's body over to gRPC.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *message:
		out := make(mem.BufferSlice, 0, len(v.body)+1)
		out = append(append(out, mem.SliceBuffer(v.head())), v.body...)
		v.body = nil
		return out, nil
	case *zerobuspb.EphemeralStreamRequest:
		data, err := proto.Marshal(v)
		if err != nil {
			return nil, err
		}
		return mem.BufferSlice{mem.SliceBuffer(data)}, nil
	}
	return nil, fmt.Errorf("cannot send a %T", v)
}

// Unmarshal reads an answer. Those of the service are a few bytes.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	answer, ok := v.(*zerobuspb.EphemeralStreamResponse)
	if !ok {
		return fmt.Errorf("cannot receive a %T", v)
	}
	return proto.Unmarshal(data.Materialize(), answer)
}

const (
	columnsMax       = 2000  // of a table Zerobus writes to
	reservedFrom     = 19000 // numbers that protobuf keeps for itself
	reservedTo       = 19999 // https://protobuf.dev/programming-guides/proto2/#assigning
	mapKey, mapValue = int32(1), int32(2)
)

// identifier matches the names that protobuf takes, and Zerobus for columns.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// protobufTypes are the field types of Delta's scalar types, as Zerobus reads them: DATE is
// days since 1970, a timestamp microseconds, DECIMAL and VARIANT are text.
// https://docs.databricks.com/aws/en/ingestion/zerobus-ingest
var protobufTypes = map[delta.Kind]descriptorpb.FieldDescriptorProto_Type{
	delta.String:       descriptorpb.FieldDescriptorProto_TYPE_STRING,
	delta.TinyInt:      descriptorpb.FieldDescriptorProto_TYPE_INT32,
	delta.SmallInt:     descriptorpb.FieldDescriptorProto_TYPE_INT32,
	delta.Int:          descriptorpb.FieldDescriptorProto_TYPE_INT32,
	delta.BigInt:       descriptorpb.FieldDescriptorProto_TYPE_INT64,
	delta.Float:        descriptorpb.FieldDescriptorProto_TYPE_FLOAT,
	delta.Double:       descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
	delta.Boolean:      descriptorpb.FieldDescriptorProto_TYPE_BOOL,
	delta.Binary:       descriptorpb.FieldDescriptorProto_TYPE_BYTES,
	delta.Date:         descriptorpb.FieldDescriptorProto_TYPE_INT32,
	delta.Timestamp:    descriptorpb.FieldDescriptorProto_TYPE_INT64,
	delta.TimestampNTZ: descriptorpb.FieldDescriptorProto_TYPE_INT64,
	delta.Decimal:      descriptorpb.FieldDescriptorProto_TYPE_STRING,
	delta.Variant:      descriptorpb.FieldDescriptorProto_TYPE_STRING,
}

// describe returns the protobuf message of a row, in proto2, with one field per column under
// the given numbers. A NOT NULL column is required, a STRUCT a nested message with fields
// numbered from 1, an ARRAY a repeated field, a MAP a repeated entry. The message is
// self-contained: every type is nested in it and has its full name from the message on, such
// as .EventsStream.Ctx.Geo. The service refuses relative names with error 4033.
func describe(table TableName, cols []Column, numbers map[string]int32) (*descriptorpb.DescriptorProto, error) {
	if len(cols) > columnsMax {
		return nil, fmt.Errorf("the table has %d columns, Zerobus takes at most %d", len(cols), columnsMax)
	}
	m := newMessageType("", pascal(table.Schema+"_"+table.Table))
	for _, c := range cols {
		m.types[c.Name] = true
	}
	for _, c := range cols {
		t, err := delta.Parse(c.Type)
		if err == nil {
			err = m.add(c.Name, numbers[c.Name], t, c.NotNull)
		}
		if err != nil {
			return nil, fmt.Errorf("column %q (%s): %w", databricks.Clean(c.Name, 255), databricks.Clean(c.Type, 80), err)
		}
	}
	return m.out, nil
}

// messageType is a message being built.
type messageType struct {
	out   *descriptorpb.DescriptorProto
	full  string          // name, qualified with the messages around it: .Row.Ctx
	names map[string]bool // of fields
	types map[string]bool // names of fields and nested messages, which share a scope
}

func newMessageType(scope, name string) *messageType {
	return &messageType{
		out: &descriptorpb.DescriptorProto{Name: &name}, full: scope + "." + name,
		names: map[string]bool{}, types: map[string]bool{},
	}
}

func (m *messageType) add(name string, number int32, t *delta.Type, notNull bool) error {
	switch {
	case !identifier.MatchString(name):
		return fmt.Errorf("protobuf cannot hold the name %q; use ASCII letters, digits and underscores", databricks.Clean(name, 255))
	case m.names[name]:
		return fmt.Errorf("the name %q is a duplicate", name)
	case number >= reservedFrom && number <= reservedTo:
		return fmt.Errorf("its position %d is one of the field numbers %d to %d that protobuf reserves", number, reservedFrom, reservedTo)
	case number < 1:
		return fmt.Errorf("%d is no field number", number)
	}
	m.names[name] = true
	f := newField(name, number)
	if notNull {
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED.Enum()
	}
	m.out.Field = append(m.out.Field, f)
	switch t.Kind {
	case delta.Array:
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		if t.Elem.Kind == delta.Array || t.Elem.Kind == delta.Map {
			return fmt.Errorf("protobuf cannot hold an %s inside an ARRAY; put the inner one into a STRUCT, or set zerobus.record_format to json", t.Elem.Kind)
		}
		return m.single(f, t.Elem, pascal(name))
	case delta.Map:
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		return m.entry(f, t)
	}
	return m.single(f, t, pascal(name))
}

func newField(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: &name, JsonName: &name, Number: &number,
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
}

// single sets the type of one value. A STRUCT is nested in m under the name wanted, with a
// number appended if that is taken.
func (m *messageType) single(f *descriptorpb.FieldDescriptorProto, t *delta.Type, wanted string) error {
	if t.Kind == delta.Struct {
		inner := newMessageType(m.full, m.unique(wanted))
		for _, field := range t.Fields {
			inner.types[field.Name] = true
		}
		for i, field := range t.Fields {
			if err := inner.add(field.Name, int32(i+1), field.Type, field.NotNull); err != nil {
				return fmt.Errorf("field %q: %w", databricks.Clean(field.Name, 255), err)
			}
		}
		m.nest(f, inner)
		return nil
	}
	scalar, ok := protobufTypes[t.Kind]
	if !ok {
		return fmt.Errorf("the type %s is none that Zerobus writes", databricks.Clean(cmp.Or(t.Kind.String(), t.Name), 80))
	}
	f.Type = &scalar
	return nil
}

// entry sets the type of a MAP.
func (m *messageType) entry(f *descriptorpb.FieldDescriptorProto, t *delta.Type) error {
	switch key, ok := protobufTypes[t.Key.Kind]; {
	case !ok, key == descriptorpb.FieldDescriptorProto_TYPE_FLOAT, key == descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
		key == descriptorpb.FieldDescriptorProto_TYPE_BYTES:
		return fmt.Errorf("protobuf cannot hold a MAP with %s keys; set zerobus.record_format to json", databricks.Clean(cmp.Or(t.Key.Kind.String(), t.Key.Name), 80))
	}
	if t.Elem.Kind == delta.Array || t.Elem.Kind == delta.Map {
		return fmt.Errorf("protobuf cannot hold an %s inside a MAP; put it into a STRUCT, or set zerobus.record_format to json", t.Elem.Kind)
	}
	// The name is not free: protobuf's own compilers derive it from the field's.
	name := pascal(f.GetName()) + "Entry"
	if m.types[name] {
		return fmt.Errorf("protobuf calls the entries of this MAP %s, and that name is taken by another; rename one of the two", name)
	}
	m.types[name] = true
	inner := newMessageType(m.full, name)
	inner.out.Options = &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}
	key, value := newField("key", mapKey), newField("value", mapValue)
	inner.out.Field = []*descriptorpb.FieldDescriptorProto{key, value}
	if err := inner.single(key, t.Key, ""); err != nil {
		return err
	}
	// An entry holds key and value only, so a STRUCT is nested beside it.
	if err := m.single(value, t.Elem, pascal(f.GetName())+"Value"); err != nil {
		return err
	}
	m.nest(f, inner)
	return nil
}

func (m *messageType) nest(f *descriptorpb.FieldDescriptorProto, inner *messageType) {
	f.Type = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum()
	f.TypeName = &inner.full
	m.out.NestedType = append(m.out.NestedType, inner.out)
}

// unique returns a name that nothing in m has yet.
func (m *messageType) unique(name string) string {
	for i, base := 2, name; m.types[name]; i++ {
		name = fmt.Sprint(base, i)
	}
	m.types[name] = true
	return name
}

// pascal turns snake_case into PascalCase, with an M in front if it begins with a digit or
// is empty.
func pascal(name string) string {
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '_' || r > 'z' || !identifier.MatchString("a"+string(r)) })
	for i, word := range words {
		words[i] = strings.ToUpper(word[:1]) + word[1:]
	}
	text := strings.Join(words, "")
	if text == "" || text[0] >= '0' && text[0] <= '9' {
		return "M" + text
	}
	return text
}
