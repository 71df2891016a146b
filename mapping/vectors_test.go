package mapping_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/mapping"
)

const vectorsFile = "testdata/vectors.tsv"

// TestVectors runs testdata/vectors.tsv: a Delta type, a JSON value in the
// event, the value in a JSON row, the bytes of a protobuf row whose column is
// number 1 (for a reject its code in the place of both; NULL where there is
// none). Beyond the file, the bytes must be what protobuf's own library writes
// for the message it reads from them.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for n, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if strings.HasPrefix(line, "#") || line == "" {
			out.WriteString(line + "\n")
			continue
		}
		cells := append(strings.Split(line, "\t"), "", "")
		asJSON, wire := vector(t, cells[0], cells[1])
		out.WriteString(strings.Join([]string{cells[0], cells[1], asJSON, wire}, "\t") + "\n")
		if *update {
			continue
		}
		if asJSON != cells[2] {
			t.Errorf("line %d: %s of %s in JSON: got %s, want %s", n+1, cells[0], cells[1], asJSON, cells[2])
		}
		if wire != cells[3] {
			t.Errorf("line %d: %s of %s in protobuf: got %s, want %s", n+1, cells[0], cells[1], wire, cells[3])
		}
	}
	if *update {
		if err := os.WriteFile(vectorsFile, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// known is a column that is always NULL. Its source, the record's key, makes every
// event one that the blueprint recognizes.
const known = `{source: $kafka.key, target: known, value_map: {"*": null}}`

func vector(t *testing.T, typ, value string) (asJSON, wire string) {
	t.Helper()
	w := twinsOf(t, "version: 2\nglobal: {mappings: [{source: v, target: v, type: '"+typ+"'}, "+known+"]}\n", mapping.Options{Settings: mapping.Settings{Input: "canonical"}})
	got, want := w.check(t, []byte(`{"v":`+value+`}`))
	asJSON, wire = want.codes[0], got.codes[0]
	if asJSON == "row" {
		var row struct{ V json.RawMessage }
		if err := json.Unmarshal(want.rows[0], &row); err != nil {
			t.Fatal(err)
		}
		if asJSON = string(row.V); asJSON == "" {
			asJSON = "NULL"
		}
	}
	if wire == "row" {
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(decode(t, w.desc, got.rows[0]).Interface())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, got.rows[0]) {
			t.Errorf("%s of %s: got %x, and %x from protobuf's own library", typ, value, got.rows[0], again)
		}
		if wire = hex.EncodeToString(got.rows[0]); wire == "" && asJSON == "NULL" {
			wire = "NULL"
		}
	}
	return asJSON, wire
}
