package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

const descriptors = "../../zerobus/testdata/descriptors/"

// wideBlueprint fills every column of table.sql.
func wideBlueprint(cols []zerobus.Column) []byte {
	var b strings.Builder
	b.WriteString("version: 2\nglobal:\n  mappings:\n")
	for _, c := range cols {
		fmt.Fprintf(&b, "    - {source: properties.%s, target: %s, type: %q}\n", c.Name, c.Name, c.Type)
	}
	return []byte(b.String())
}

// wideRows are events for wideBlueprint and the rows that the emulator keeps
// of them.
var wideRows = []struct{ properties, row string }{
	{
		`{"message_id":"m-1","name":"nine","code":"abc","tiny":-128,"small":300,"whole":-70000,"big":"9007199254740993","ratio":1.5,"exact_ratio":0.1,
		"flag":true,"raw":"AAEC","day":"2024-10-04","event_timestamp":"2025-10-09T08:53:20Z","local_time":"2025-10-09T08:53:20Z","price":"12.34",
		"payload":{"a":[1]},"tags":["a","","é"],"counts":[1,-2,9007199254740993],"labels":{"k":"v"},"by_code":{"7":0.5},
		"ctx":{"ip":"::1","geo":{"lat":1.5,"places":["x","y"]},"props":{"p":{"v":"q"}},"hops":[{"n":1},{},{"n":-3}]},
		"items":[{"sku":"s","n":2,"price":"9.9"},{"sku":""}],"things":{"-1":{"v":"w","at":"1970-01-01T00:00:01Z","raw":"/w=="}}}`,
		`{"message_id":"m-1","name":"nine","code":"abc","tiny":-128,"small":300,"whole":-70000,"big":9007199254740993,"ratio":1.5,"exact_ratio":0.1,` +
			`"flag":true,"raw":"AAEC","day":20000,"event_timestamp":1760000000000000,"local_time":1760000000000000,"price":"12.34",` +
			`"payload":"{\"a\":[1]}","tags":["a","","é"],"counts":[1,-2,9007199254740993],"labels":{"k":"v"},"by_code":{"7":0.5},` +
			`"ctx":{"ip":"::1","geo":{"lat":1.5,"places":["x","y"]},"props":{"p":{"v":"q"}},"hops":[{"n":1},{},{"n":-3}]},` +
			`"items":[{"sku":"s","n":2,"price":"9.9"},{"sku":""}],"things":{"-1":{"v":"w","at":1000000,"raw":"/w=="}}}`,
	},
	{`{"message_id":"m-2","big":0,"ctx":{}}`, `{"message_id":"m-2","big":0,"ctx":{}}`},
	{
		`{"message_id":"","big":-1,"flag":false,"whole":0,"name":"","tags":[],"labels":{},"ctx":{"geo":{"lat":0}},"items":[]}`,
		`{"message_id":"","name":"","whole":0,"big":-1,"flag":false,"ctx":{"geo":{"lat":0}}}`,
	},
}

type rowCollector struct {
	t    *testing.T
	rows [][]byte
}

func (c *rowCollector) Buf() []byte    { return nil }
func (c *rowCollector) Row(row []byte) { c.rows = append(c.rows, row) }
func (c *rowCollector) Reject(code, column, reason string) {
	c.t.Fatalf("event rejected: %s %s %s", code, column, reason)
}
func (c *rowCollector) Filter(reason string) { c.t.Fatalf("event filtered: %s", reason) }

// TestRowsAreTheSameUnderEveryDescriptor has the mapper make rows and the
// emulator read them by our descriptor, protoc's in both syntaxes and that of
// Databricks' own builder, in both schema modes. protobuf's dynamic messages
// read them, too.
func TestRowsAreTheSameUnderEveryDescriptor(t *testing.T) {
	ddl, err := os.ReadFile(descriptors + "table.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []emulator.SchemaMode{emulator.SchemaByName, emulator.SchemaExact} {
		t.Run(string(mode), func(t *testing.T) {
			em := startEmulator(t, emulator.Config{DDL: string(ddl), Auth: emulator.AuthOff, Schema: mode})
			client := clientOf(t, em)
			cols, err := client.Columns(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			form, err := client.Encoding(cols)
			if err != nil || form.Format != zerobus.FormatProtobuf {
				t.Fatalf("Encoding: got %+v, %v, want protobuf", form, err)
			}
			rows := wideMapped(t, cols, form)

			if _, err := client.Write(t.Context(), client.SetRowColumns(cols), rows); err != nil {
				t.Fatalf("Write: %v", err)
			}
			keptAs(t, em, "the client")
			var dynamic []string
			for _, file := range []string{"ours.txtpb", "official.txtpb", "proto2.binpb", "proto3.binpb"} {
				d := loadDescriptor(t, file)
				sendRows(t, em, d, rows)
				keptAs(t, em, file)
				dynamic = append(dynamic, asJSON(t, d, rows))
			}
			for i, got := range dynamic {
				if got != dynamic[0] {
					t.Errorf("dynamic message %d: got %s, want %s", i, got, dynamic[0])
				}
			}
		})
	}
}

func startEmulator(t *testing.T, cfg emulator.Config) *emulator.Emulator {
	t.Helper()
	em, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), await.Patience)
		defer cancel()
		if err := em.Close(ctx); err != nil {
			t.Errorf("close the emulator: %v", err)
		}
	})
	if err := em.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := em.StartZerobus("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return em
}

func clientOf(t *testing.T, em *emulator.Emulator) *zerobus.Client {
	t.Helper()
	c, err := zerobus.New(zerobus.Config{Settings: zerobus.Settings{
		WorkspaceURL: em.URL(), ClientID: emulator.DefaultClientID, WorkspaceID: emulator.DefaultWorkspaceID,
		ClientSecret: emulator.DefaultClientSecret, Table: "datafly.events.stream",
		Transport: "grpc", Endpoint: em.ZerobusURL(),
	}}, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// wideMapped are the rows of wideRows, as the mapper makes them.
func wideMapped(t *testing.T, cols []zerobus.Column, form zerobus.Encoding) [][]byte {
	t.Helper()
	plan, err := mapping.Parse("wide.yaml", wideBlueprint(cols))
	if err != nil {
		t.Fatal(err)
	}
	o := mapping.Options{Settings: mapping.Settings{Input: "canonical"}, Format: form.Format}
	for _, c := range cols {
		o.Table = append(o.Table, mapping.Column{Name: c.Name, Type: c.Type, NotNull: c.NotNull, Number: form.Numbers[c.Name]})
	}
	m, err := plan.Compile(o)
	if err != nil {
		t.Fatal(err)
	}
	out := &rowCollector{t: t}
	for _, w := range wideRows {
		m.NewMapper().Map(&mapping.Record{Value: fmt.Appendf(nil, `{"type":"track","event":"x","properties":%s}`, w.properties)}, out)
	}
	if len(out.rows) != len(wideRows) {
		t.Fatalf("rows: got %d, want %d", len(out.rows), len(wideRows))
	}
	return out.rows
}

func loadDescriptor(t *testing.T, file string) *descriptorpb.DescriptorProto {
	t.Helper()
	text, err := os.ReadFile(descriptors + file)
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

// sendRows opens a stream of its own for the descriptor.
func sendRows(t *testing.T, em *emulator.Emulator, d *descriptorpb.DescriptorProto, rows [][]byte) {
	t.Helper()
	u, err := url.Parse(em.ZerobusURL())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const table = "datafly.events.stream"
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), emulator.TableHeader, table), await.Patience)
	defer cancel()
	s, err := zerobuspb.NewZerobusClient(conn).EphemeralStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	text, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*zerobuspb.EphemeralStreamRequest{
		{Payload: &zerobuspb.EphemeralStreamRequest_CreateStream{CreateStream: &zerobuspb.CreateIngestStreamRequest{
			TableName: proto.String(table), RecordType: zerobuspb.RecordType_PROTO.Enum(), DescriptorProto: text,
		}}},
		{Payload: &zerobuspb.EphemeralStreamRequest_IngestRecordBatch{IngestRecordBatch: &zerobuspb.IngestRecordBatchRequest{
			OffsetId: proto.Int64(0),
			Batch:    &zerobuspb.IngestRecordBatchRequest_ProtoEncodedBatch{ProtoEncodedBatch: &zerobuspb.ProtoEncodedRecordBatch{Records: rows}},
		}}},
	} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
}

// keptAs wants the table to hold wideRows, and empties it.
func keptAs(t *testing.T, em *emulator.Emulator, who string) {
	t.Helper()
	kept := em.Table("datafly.events.stream").Rows(nil)
	if len(kept) != len(wideRows) {
		t.Fatalf("%s: got %d rows, want %d", who, len(kept), len(wideRows))
	}
	for i, w := range wideRows {
		if got := string(kept[i].JSON); got != w.row {
			t.Errorf("%s: row %d: got\n%s\nwant\n%s", who, i, got, w.row)
		}
	}
	if err := em.Reset(); err != nil {
		t.Fatal(err)
	}
}

// asJSON is how protobuf's dynamic messages read the rows. It takes out what
// protobuf has only in files: proto3's optional, and the mark of a map's entry,
// whose name protodesc wants to be protoc's.
func asJSON(t *testing.T, d *descriptorpb.DescriptorProto, rows [][]byte) string {
	t.Helper()
	pkg := "p"
	var plain func(*descriptorpb.DescriptorProto)
	plain = func(d *descriptorpb.DescriptorProto) {
		d.OneofDecl = nil
		if d.Options != nil {
			d.Options.MapEntry = nil
		}
		for _, f := range d.GetField() {
			f.Proto3Optional, f.OneofIndex, f.JsonName = nil, nil, nil
			if before, _, ok := strings.Cut(f.GetTypeName(), ".EventsStream."); ok {
				pkg = strings.TrimPrefix(before, ".")
			}
		}
		for _, inner := range d.GetNestedType() {
			plain(inner)
		}
	}
	plain(d)
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("row.proto"), Syntax: proto.String("proto2"), MessageType: []*descriptorpb.DescriptorProto{d}}
	if pkg != "" {
		file.Package = &pkg
	}
	resolved, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, row := range rows {
		m := dynamicpb.NewMessage(resolved.Messages().Get(0))
		if err := proto.Unmarshal(row, m); err != nil {
			t.Fatalf("row %x: %v", row, err)
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer // protojson's spaces vary
		if err := json.Compact(&compact, text); err != nil {
			t.Fatal(err)
		}
		all = append(all, compact.String())
	}
	if slices.Contains(all, "{}") {
		t.Fatalf("rows read as %q, want values", all)
	}
	return strings.Join(all, "\n")
}
