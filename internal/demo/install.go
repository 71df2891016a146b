package demo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/datafly/bridge/internal/integrations/store"
)

// pageCall is the call of Signal's integration page.
const pageCall = `curl -X POST http://localhost:8084/v1/admin/integration-catalog/databricks_zerobus/install \
-H "Authorization: Bearer YOUR_TOKEN" \
-H "Content-Type: application/json" \
-d '{
"name": "Databricks (Zerobus Ingest)",
"variant": "default",
"config": {
"workspace_url": "https://` + pageHost + `",
"client_id": "` + pageClientID + `",
"client_secret": "` + pageClientSecret + `",
"catalog": "datafly",
"schema": "events",
"table": "stream"
},
"delivery_mode": "server_side"
}'`

// newKey writes a key that seals the secrets of installed integrations to a folder of
// its own, which remove removes.
func newKey() (file string, remove func() error, err error) {
	dir, err := os.MkdirTemp("", "bridge-demo-")
	if err != nil {
		return "", nil, fmt.Errorf("making a folder for the key of the store: %w; let TMPDIR name one that this user can write", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	key := make([]byte, store.KeyBytes)
	_, _ = rand.Read(key) // it never fails
	file = filepath.Join(dir, "store.key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		return "", nil, errors.Join(fmt.Errorf("writing the key of the store: %w", err), remove())
	}
	return file, remove, nil
}

// invite shows where the console is and, in a demo that has no number of events, the page's
// call.
func (d *demo) invite() {
	address := d.bridge.AdminAddr()
	if address == "" {
		return
	}
	d.o.Message("console and install API: http://%s", address)
	if !d.open {
		return
	}
	_, port, _ := net.SplitHostPort(address)
	d.o.Message("install another integration, into %s, with the call of Signal's integration page:\n\n%s\n\nits rows: curl -sk '%s/emulator/tables/%s/rows?limit=3'\nCtrl-C ends the demo and shows its report",
		pageTable, strings.Replace(pageCall, ":8084/", ":"+port+"/", 1), d.workspace.URL(), pageTable)
}
