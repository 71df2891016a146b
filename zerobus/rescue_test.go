package zerobus_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// TestAutoChoosesJSONForARescueColumn has the format chosen for a table with
// VARIANT columns, tagged and not.
func TestAutoChoosesJSONForARescueColumn(t *testing.T) {
	const (
		json    = "rows are sent as JSON, since the rescue column takes nothing from protobuf rows"
		refused = "rows are sent as protobuf, of which the rescue column takes nothing: fields that do not fit the table are refused"
		unknown = "rows are sent as protobuf, and whether the table has a rescue column is not known"
	)
	for name, c := range map[string]struct {
		format string // zerobus.record_format
		tags   map[string]string
		fault  *emulator.Fault // of the tags alone
		want   string
		log    string
		asked  int // requests for columns and tags
	}{
		"no tag":                        {zerobus.FormatAuto, nil, nil, zerobus.FormatProtobuf, "", 3},
		"another tag":                   {zerobus.FormatAuto, map[string]string{"extra": "team"}, nil, zerobus.FormatProtobuf, "", 3},
		"the tag":                       {zerobus.FormatAuto, map[string]string{"extra": "zerobus-rescue"}, nil, zerobus.FormatJSON, json, 3},
		"the tag on the first":          {zerobus.FormatAuto, map[string]string{"payload": "zerobus-rescue"}, nil, zerobus.FormatJSON, json, 2},
		"the tag on NOT NULL":           {zerobus.FormatAuto, map[string]string{"must": "zerobus-rescue"}, nil, zerobus.FormatProtobuf, "", 3},
		"the tag on a STRING":           {zerobus.FormatAuto, map[string]string{"message_id": "zerobus-rescue"}, nil, zerobus.FormatProtobuf, "", 3},
		"protobuf by choice":            {zerobus.FormatProtobuf, map[string]string{"extra": "zerobus-rescue"}, nil, zerobus.FormatProtobuf, refused, 3},
		"protobuf by choice, no tag":    {zerobus.FormatProtobuf, nil, nil, zerobus.FormatProtobuf, "", 3},
		"protobuf by choice, not known": {zerobus.FormatProtobuf, nil, &emulator.Fault{Status: 403}, zerobus.FormatProtobuf, "", 2},
		"json by choice":                {zerobus.FormatJSON, map[string]string{"extra": "zerobus-rescue"}, nil, zerobus.FormatJSON, "", 1},
		"no such API":                   {zerobus.FormatAuto, nil, &emulator.Fault{Status: 404}, zerobus.FormatProtobuf, unknown, 2},
		"no right to see them":          {zerobus.FormatAuto, nil, &emulator.Fault{Status: 403}, zerobus.FormatProtobuf, unknown, 2},
		"not a list":                    {zerobus.FormatAuto, nil, &emulator.Fault{Status: 200, Body: new("<html>")}, zerobus.FormatProtobuf, unknown, 2},
		"null":                          {zerobus.FormatAuto, nil, &emulator.Fault{Status: 200, Body: new("null")}, zerobus.FormatProtobuf, unknown, 2},
		"pages without end":             {zerobus.FormatAuto, nil, &emulator.Fault{Status: 200, Body: new(`{"next_page_token":"x"}`)}, zerobus.FormatProtobuf, unknown, 11},
	} {
		t.Run(name, func(t *testing.T) {
			em, err := emulator.New(emulator.Config{DDL: "CREATE TABLE datafly.events.stream (message_id STRING, payload VARIANT, must VARIANT NOT NULL, extra VARIANT)"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { shut(t, em) })
			for column, tag := range c.tags {
				if err := em.Table(target).SetColumnTags(column, tag); err != nil {
					t.Fatal(err)
				}
			}
			asked := 0
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/unity-catalog/") {
					asked++
				}
				if c.fault != nil && strings.HasPrefix(r.URL.Path, emulator.TagsPath) {
					w.WriteHeader(c.fault.Status)
					if c.fault.Body != nil {
						_, _ = w.Write([]byte(*c.fault.Body))
					}
					return
				}
				em.Handler().ServeHTTP(w, r)
			}))
			defer front.Close()
			core, logs := observer.New(zap.DebugLevel)
			client, err := zerobus.New(zerobus.Config{Settings: zerobus.Settings{
				WorkspaceURL: front.URL, ClientID: emulator.DefaultClientID, WorkspaceID: emulator.DefaultWorkspaceID,
				ClientSecret: emulator.DefaultClientSecret, Table: target,
				Transport: "grpc", Endpoint: front.URL, RecordFormat: c.format,
			}}, zap.New(core), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			cols, err := client.Columns(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the choice is made once
				form, err := client.Encoding(cols)
				if err != nil || form.Format != c.want {
					t.Errorf("Encoding: got %+v, %v, want %s", form, err, c.want)
				}
			}
			if asked != c.asked {
				t.Errorf("requests for columns and tags: got %d, want %d", asked, c.asked)
			}
			if _, err := client.Columns(t.Context()); err != nil || asked != c.asked+1 {
				t.Errorf("columns once the format is chosen: %v and %d more requests, want 1", err, asked-c.asked)
			}
			var reported []string
			for _, e := range logs.FilterMessageSnippet("rows are sent as").All() {
				reported = append(reported, e.Message)
			}
			if got := strings.Join(reported, "; "); got != c.log {
				t.Errorf("log: got %q, want %q", got, c.log)
			}
		})
	}
}
