package zerobus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/datafly/bridge/internal/delta"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// described chooses the form of rows, opens a stream and returns the message
// that the service received as the form of rows.
func described(t *testing.T, b streaming, cols []zerobus.Column) protoreflect.MessageDescriptor {
	t.Helper()
	if _, err := b.Encoding(cols); err != nil {
		t.Fatalf("Encoding: %v", err)
	}
	b.space.set(func() { b.space.columns = document(cols) })
	b.SetRowColumns(cols)
	if err := b.Preflight(t.Context()); err != nil {
		t.Fatalf("Preflight: %v", err)
	}
	create := b.svc.stream(b.svc.opened()).create
	if create.GetRecordType() != zerobuspb.RecordType_PROTO {
		t.Fatalf("record type is %v, want PROTO", create.GetRecordType())
	}
	return resolve(t, create.GetDescriptorProto())
}

// document is how Unity Catalog describes the columns.
func document(cols []zerobus.Column) string {
	type column struct {
		Name     string `json:"name"`
		Position int    `json:"position"`
		Nullable bool   `json:"nullable"`
		Type     string `json:"type_text"`
	}
	var all []column
	for _, c := range cols {
		all = append(all, column{c.Name, c.Position, !c.NotNull, c.Type})
	}
	text, err := json.Marshal(map[string]any{"columns": all})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// resolve has protobuf itself check the descriptor, which stands alone: in no
// package.
func resolve(t *testing.T, text []byte) protoreflect.MessageDescriptor {
	t.Helper()
	message := &descriptorpb.DescriptorProto{}
	if err := proto.Unmarshal(text, message); err != nil {
		t.Fatalf("the descriptor: %v", err)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: proto.String("row.proto"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{message}}, nil)
	if err != nil {
		t.Fatalf("protobuf does not take the descriptor: %v\n%v", err, message)
	}
	return file.Messages().Get(0)
}

// shape writes a message's fields as protobuf would declare them.
func shape(m protoreflect.MessageDescriptor) string {
	var out []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		text := fmt.Sprintf("%v %v %s=%d", f.Cardinality(), f.Kind(), f.Name(), f.Number())
		switch {
		case f.IsMap():
			text = fmt.Sprintf("map<%v,%v> %s=%d", f.MapKey().Kind(), f.MapValue().Kind(), f.Name(), f.Number())
			if f.MapValue().Message() != nil {
				text += "{" + shape(f.MapValue().Message()) + "}"
			}
		case f.Message() != nil:
			text += "{" + shape(f.Message()) + "}"
		}
		if f.JSONName() != string(f.Name()) {
			text += " as " + f.JSONName()
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func col(position int, name, delta string) zerobus.Column {
	return zerobus.Column{Name: name, Type: delta, Position: position}
}

func TestTheDescriptorOfARow(t *testing.T) {
	for delta, want := range map[string]string{
		"STRING": "optional string", "VARCHAR(20)": "optional string", "CHAR(3)": "optional string",
		"BYTE": "optional int32", "TINYINT": "optional int32", "SHORT": "optional int32", "SMALLINT": "optional int32",
		"INT": "optional int32", "INTEGER": "optional int32", "LONG": "optional int64", "BIGINT": "optional int64",
		"FLOAT": "optional float", "DOUBLE": "optional double", "BOOLEAN": "optional bool", "BINARY": "optional bytes",
		"DATE": "optional int32", "TIMESTAMP": "optional int64", "TIMESTAMP_NTZ": "optional int64",
		"DECIMAL(10,2)": "optional string", "VARIANT": "optional string",
		"ARRAY<BIGINT>": "repeated int64", "ARRAY<DECIMAL(10,2)>": "repeated string",
	} {
		t.Run(delta, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := shape(described(t, streamed(t, &service{}, nil), []zerobus.Column{col(0, "c", delta)}))
				if want += " c=1"; got != want {
					t.Errorf("the descriptor has %s, want %s", got, want)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		cols := []zerobus.Column{
			{Name: "id", Type: "STRING", NotNull: true},
			col(3, "event_id", "BIGINT"), // 1 and 2 were dropped
			col(4, "tags", "MAP<STRING,DOUBLE>"),
			col(5, "ctx", "STRUCT<ip:STRING,geo:STRUCT<lat:DOUBLE NOT NULL,names:ARRAY<STRING>>,props:MAP<INT,STRUCT<v:VARIANT>>>"),
			col(6, "items", "ARRAY<STRUCT<sku:STRING,n:INT NOT NULL>>"),
			col(7, "ctx_", "STRUCT<a:INT>"), // the same name in PascalCase
			col(8, "_9", "STRUCT<`b`:INT>"),
			col(9, "Ctx2", "STRING"),
		}
		m := described(t, streamed(t, &service{}, nil), cols)
		if got, want := string(m.Name()), "EventsStream"; got != want {
			t.Errorf("the message is %s, want %s", got, want)
		}
		want := "required string id=1; optional int64 event_id=4; map<string,double> tags=5; " +
			"optional message ctx=6{optional string ip=1; optional message geo=2{required double lat=1; repeated string names=2}; map<int32,message> props=3{optional string v=1}}; " +
			"repeated message items=7{optional string sku=1; required int32 n=2}; optional message ctx_=8{optional int32 a=1}; optional message _9=9{optional int32 b=1}; optional string Ctx2=10"
		if got := shape(m); got != want {
			t.Errorf("the descriptor has\n%s\nwant\n%s", got, want)
		}
	})
}

func TestColumnsThatProtobufCannotHold(t *testing.T) {
	many := make([]zerobus.Column, 2001)
	for i := range many {
		many[i] = col(i, fmt.Sprintf("c%d", i), "STRING")
	}
	for _, tt := range []struct {
		name string
		cols []zerobus.Column
		want string
	}{
		{"array of arrays", []zerobus.Column{col(0, "a", "ARRAY<ARRAY<INT>>")}, `column "a" (ARRAY<ARRAY<INT>>): protobuf cannot hold an ARRAY inside an ARRAY`},
		{"array of maps", []zerobus.Column{col(0, "a", "ARRAY<MAP<INT,INT>>")}, "cannot hold an MAP inside an ARRAY"},
		{"map of maps", []zerobus.Column{col(0, "a", "MAP<INT,MAP<INT,INT>>")}, "cannot hold an MAP inside a MAP"},
		{"map of arrays", []zerobus.Column{col(0, "a", "MAP<INT,ARRAY<INT>>")}, "cannot hold an ARRAY inside a MAP"},
		{"map by float", []zerobus.Column{col(0, "a", "MAP<FLOAT,INT>")}, "cannot hold a MAP with FLOAT keys"},
		{"map by binary", []zerobus.Column{col(0, "a", "MAP<BINARY,INT>")}, "cannot hold a MAP with BINARY keys"},
		{"map by struct", []zerobus.Column{col(0, "a", "MAP<STRUCT<a:INT>,INT>")}, "cannot hold a MAP with STRUCT keys"},
		{"inside a struct", []zerobus.Column{col(0, "a", "STRUCT<b:ARRAY<ARRAY<INT>>>")}, `field "b": protobuf cannot hold`},
		{"interval", []zerobus.Column{col(0, "a", "INTERVAL YEAR TO MONTH")}, "the type INTERVAL YEAR TO MONTH is none that Zerobus writes"},
		{"odd name", []zerobus.Column{col(0, "päge title", "INT")}, `cannot hold the name "päge title"`},
		{"odd field", []zerobus.Column{col(0, "a", "STRUCT<`b c`:INT>")}, `cannot hold the name "b c"`},
		{"twice", []zerobus.Column{col(0, "a", "INT"), col(1, "a", "INT")}, `"a" is a duplicate`},
		{"twice in a struct", []zerobus.Column{col(0, "a", "STRUCT<b:INT,b:INT>")}, `"b" is a duplicate`},
		{"one place for two", []zerobus.Column{col(0, "a", "INT"), col(0, "b", "INT")}, `"a" and "b" are both at position 0`},
		{"reserved", []zerobus.Column{col(18999, "a", "INT")}, "position 19000 is one of the field numbers 19000 to 19999"},
		{"maps of one entry name", []zerobus.Column{col(0, "a_b", "MAP<INT,INT>"), col(1, "aB", "MAP<INT,INT>")}, "calls the entries of this MAP ABEntry"},
		{"too many", many, "2001 columns"},
		{"no type", []zerobus.Column{col(0, "a", "STRUCT<b>")}, "a type is missing"},
		{"open", []zerobus.Column{col(0, "a", "ARRAY<INT")}, "ARRAY is not closed"},
		{"deep", []zerobus.Column{col(0, "a", strings.Repeat("ARRAY<", 200)+"INT"+strings.Repeat(">", 200))}, "nested deeper than 100"},
		{"not known", nil, "GRANT SELECT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := streamed(t, &service{}, func(c *zerobus.Config) { c.RecordFormat = zerobus.FormatProtobuf })
				_, err := b.Encoding(tt.cols)
				if err == nil || !zerobus.IsPermanent(err) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Encoding: %v, want a permanent fault that holds %q", err, tt.want)
				}
				auto := streamed(t, &service{}, nil)
				got, err := auto.Encoding(tt.cols)
				if err != nil || got.Format != zerobus.FormatJSON || got.Numbers != nil {
					t.Errorf("Encoding under auto = %+v, %v, want json", got, err)
				}
				// Once rows are json they stay so.
				if got, err = auto.Encoding([]zerobus.Column{col(0, "a", "INT")}); err != nil || got.Format != zerobus.FormatJSON {
					t.Errorf("the next Encoding = %+v, %v, want json", got, err)
				}
			})
		})
	}
}

func TestRowsOfATableAsWideAsCanBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cols := make([]zerobus.Column, 2000)
		for i := range cols {
			cols[i] = col(i, fmt.Sprintf("c%d", i), "STRING")
		}
		b := streamed(t, &service{}, nil)
		m := described(t, b, cols)
		if got := m.Fields().Len(); got != 2000 {
			t.Errorf("%d fields, want 2000", got)
		}
	})
}

func TestProtobufRowsArriveAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, nil)
		m := described(t, b, rowColumns)
		var batch [][]byte
		for i := range 3000 {
			row := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), fmt.Sprintf("m-%d", i))
			batch = append(batch, protowire.AppendVarint(protowire.AppendTag(row, 2, protowire.VarintType), uint64(i)))
		}
		batch[7] = nil // all columns NULL
		write(t, b.bench, batch)
		if got := b.svc.stored(); !slices.Equal(got, asText(batch)) {
			t.Errorf("stored %d rows that differ from the %d written", len(got), len(batch))
		}
		row := dynamicpb.NewMessage(m)
		if err := proto.Unmarshal([]byte(b.svc.stored()[41]), row); err != nil {
			t.Fatalf("a row: %v", err)
		}
		if got := row.Get(m.Fields().ByName("message_id")).String(); got != "m-41" {
			t.Errorf("message_id is %q, want m-41", got)
		}
	})
}

func TestChangedColumnsReplaceTheStreamAndKeepTheirNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, nil)
		encode := func(cols ...zerobus.Column) map[string]int32 {
			t.Helper()
			got, err := b.Encoding(cols)
			if err != nil || got.Format != zerobus.FormatProtobuf {
				t.Fatalf("Encoding = %+v, %v, want protobuf", got, err)
			}
			return got.Numbers
		}
		for _, step := range []struct {
			name    string
			cols    []zerobus.Column
			want    map[string]int32
			streams int
		}{
			{"at first", []zerobus.Column{col(0, "a", "STRING"), col(1, "b", "STRING"), col(2, "c", "INT")}, map[string]int32{"a": 1, "b": 2, "c": 3}, 1},
			{"the same", []zerobus.Column{col(0, "a", "STRING"), col(1, "b", "STRING"), col(2, "c", "INT")}, map[string]int32{"a": 1, "b": 2, "c": 3}, 1},
			{"one more", []zerobus.Column{col(0, "a", "STRING"), col(1, "b", "STRING"), col(2, "c", "INT"), col(3, "d", "INT")}, map[string]int32{"a": 1, "b": 2, "c": 3, "d": 4}, 2},
			{"one dropped, places move up", []zerobus.Column{col(0, "b", "STRING"), col(1, "c", "INT"), col(2, "d", "INT")}, map[string]int32{"b": 2, "c": 3, "d": 4}, 3},
			{"a new one at an old place", []zerobus.Column{col(0, "b", "STRING"), col(1, "x", "STRING")}, map[string]int32{"b": 2, "x": 5}, 4},
			{"another type", []zerobus.Column{col(0, "b", "BIGINT"), col(1, "x", "STRING")}, map[string]int32{"b": 6, "x": 5}, 5},
			{"widened", []zerobus.Column{col(0, "b", "BIGINT"), col(1, "x", "VARCHAR(9)")}, map[string]int32{"b": 6, "x": 5}, 5},
			{"unknown for once", nil, map[string]int32{"b": 6, "x": 5}, 5},
		} {
			if got := encode(step.cols...); !maps.Equal(got, step.want) {
				t.Errorf("%s: numbers are %v, want %v", step.name, got, step.want)
			}
			before := b.svc.opened()
			if before > 0 {
				if write(t, b.bench, [][]byte{nil}); b.svc.opened() != before {
					t.Errorf("%s: a stream was opened before SetRowColumns announced the new form", step.name)
				}
			}
			b.SetRowColumns(step.cols)
			write(t, b.bench, [][]byte{nil})
			synctest.Wait()
			if got := b.svc.opened(); got != step.streams {
				t.Errorf("%s: %d streams were opened, want %d", step.name, got, step.streams)
			}
			if got := b.State().Streams; len(got) != 1 {
				t.Errorf("%s: streams %q are open, want one", step.name, got)
			}
			numbers := map[string]int32{}
			m := resolve(t, b.svc.stream(step.streams).create.GetDescriptorProto())
			for i := range m.Fields().Len() {
				numbers[string(m.Fields().Get(i).Name())] = int32(m.Fields().Get(i).Number())
			}
			if !maps.Equal(numbers, step.want) {
				t.Errorf("%s: the stream was opened for %v, want %v", step.name, numbers, step.want)
			}
		}
	})
}

// TestRowsOfAnOldFormAreNotSent loses a stream with rows in flight after rows
// have got another form.
func TestRowsOfAnOldFormAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lose := make(chan struct{})
		b := streamed(t, &service{handle: once(func(s *served) error {
			err := errors.Join(s.confirm(), s.receive())
			<-lose
			return errors.Join(err, status.Error(codes.Unavailable, "gone"))
		})}, nil)
		old := []zerobus.Column{col(0, "a", "STRING")}
		changed := []zerobus.Column{col(0, "a", "BIGINT")}
		if _, err := b.Encoding(old); err != nil {
			t.Fatalf("Encoding: %v", err)
		}
		b.SetRowColumns(old)
		done := inBackground(t.Context(), b.bench, [][]byte{[]byte("\n\x03old")})
		synctest.Wait()
		if _, err := b.Encoding(changed); err != nil {
			t.Fatalf("Encoding: %v", err)
		}
		b.SetRowColumns(changed)
		close(lose)
		var stale *zerobus.StaleError
		if err := <-done; !errors.As(err, &stale) {
			t.Errorf("Write of rows in the old form: %v, want them back", err)
		}
		write(t, b.bench, [][]byte{nil})
		if got := b.svc.stored(); len(got) != 1 || got[0] != "" {
			t.Errorf("stored %q, want the one row of the new form", got)
		}
		if got := b.State().Name; got != zerobus.Ready {
			t.Errorf("state is %q, want ready", got)
		}
	})
}

func TestOtherTransportsTakeJSON(t *testing.T) {
	b := virtual(t, nil)
	if got, err := b.Encoding(rowColumns); err != nil || got.Format != zerobus.FormatJSON || got.Numbers != nil {
		t.Errorf("Encoding = %+v, %v, want json", got, err)
	}
}

func FuzzDeltaText(f *testing.F) {
	f.Add([]byte(`{"name":"tags","type":{"type":"array","elementType":"string","containsNull":true},"nullable":true,"metadata":{}}`))
	f.Add([]byte(`{"type":"map","keyType":"string","valueType":{"type":"struct","fields":[{"name":"a b","type":"decimal(10,2)","nullable":false}]}}`))
	f.Add([]byte(`"long"`))
	f.Add([]byte(`{"type":{"type":{"type":"string"}}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		typ, err := delta.FromJSON(doc)
		if err != nil {
			return
		}
		text := typ.String()
		if again, err := delta.Parse(text); err != nil || again.String() != text {
			t.Fatalf("%q is read again as %v, %v", text, again, err)
		}
		cols := []zerobus.Column{{Name: "c", Type: text}}
		c, err := zerobus.NewOver(grpcConfig(), nopLog, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		descriptor, err := c.Descriptor(cols)
		var e *zerobus.Error
		if errors.As(err, &e) || err != nil {
			return // described in words
		}
		resolve(t, descriptor)
	})
}
