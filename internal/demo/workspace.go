package demo

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// The demo's workspace has the address and the credentials of Signal's integration page,
// so that the page's call works as it is printed.
const (
	pageHost         = "abc-12345.cloud.databricks.com"
	pageClientID     = "00000000-0000-0000-0000-000000000000"
	pageClientSecret = "YOUR_CLIENT_SECRET"
	pageTable        = "datafly.events.stream"
)

// Table is the table of the demo's own integration.
const Table = "datafly.events.demo"

// startWorkspace starts the emulator with the page's table and the demo's own.
func startWorkspace(latency emulator.Latency) (*emulator.Emulator, error) {
	w, err := emulator.New(emulator.Config{
		ClientID: pageClientID, ClientSecret: pageClientSecret, TLS: true, Names: []string{pageHost},
		DDL:     emulator.DefaultDDL + strings.Replace(emulator.DefaultDDL, pageTable, Table, 1),
		MaxRows: rowsKept, Latency: latency,
	})
	if err != nil {
		return nil, err
	}
	if err := w.Start("127.0.0.1:0"); err != nil {
		return nil, err
	}
	return w, w.StartZerobus("127.0.0.1:0")
}

// networkOf reaches the workspace by its name, and trusts its certificate. No name is
// looked up, and nothing outside of this machine is dialed.
func networkOf(w *emulator.Emulator) zerobus.Network {
	at := map[string]string{
		pageHost + ":443":         strings.TrimPrefix(w.URL(), "https://"),
		w.EndpointHost() + ":443": strings.TrimPrefix(w.ZerobusURL(), "https://"),
	}
	return zerobus.Network{CA: w.CAPEM(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		known, found := at[address]
		if !found {
			if host, _, err := net.SplitHostPort(address); err != nil || !setting.Loopback(host) {
				return nil, fmt.Errorf("the demo has no workspace %s; use https://%s", address, pageHost)
			}
			known = address
		}
		return new(net.Dialer).DialContext(ctx, network, known)
	}}
}
