// Sdk has the official Python SDK and the bridge's client write to the emulator, both at
// the endpoint that the client discovers. tools/official-sdk.sh installs the SDK and runs it.
//
// The emulator does not serve the integration page's path, as live workspaces do not. The
// endpoint's host name follows from the metastore, and a CONNECT proxy leads it to the
// emulator.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/test/connectproxy"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

const (
	table = "datafly.events.stream"
	rows  = 50 // of each kind
)

var policy = emulator.Federation{Issuer: "https://oidc.example", Audience: "databricks", Subject: "system:serviceaccount:datafly:bridge"}

func main() {
	python := flag.String("python", "python3", "interpreter with the SDK installed")
	script := flag.String("script", "sdk/ingest.py", "program that uses the SDK")
	flag.Parse()
	if err := run(*python, *script); err != nil {
		fmt.Fprintln(os.Stderr, "sdk:", err)
		os.Exit(1)
	}
}

func run(python, script string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	e, err := emulator.New(emulator.Config{TLS: true, NoIngestAPI: true, NoEndpointURL: true, Federation: policy})
	if err != nil {
		return err
	}
	defer func() { _ = e.Close(ctx) }() // the process ends
	if err := e.Start("127.0.0.1:0"); err != nil {
		return err
	}
	if err := e.StartZerobus("127.0.0.1:0"); err != nil {
		return err
	}
	to, err := url.Parse(e.ZerobusURL())
	if err != nil {
		return err
	}
	proxy, err := connectproxy.Start(ctx, connectproxy.Config{To: to.Host})
	if err != nil {
		return err
	}
	defer proxy.Close()
	dir, err := os.MkdirTemp("", "bridge-sdk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, e.CAPEM(), 0o600); err != nil {
		return err
	}
	for name, value := range map[string]string{"HTTPS_PROXY": proxy.URL, "https_proxy": proxy.URL, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}

	endpoint, transport, err := bridge(ctx, e.URL(), ca)
	if err != nil {
		return fmt.Errorf("the bridge's client: %w", err)
	}
	fmt.Printf("the bridge found %s and wrote over %s\n", endpoint, transport)
	jwt, err := token()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, python, script)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "SDK_ENDPOINT="+endpoint, "SDK_WORKSPACE="+e.URL(), "SDK_TABLE="+table, fmt.Sprint("SDK_ROWS=", rows),
		"SDK_CLIENT_ID="+emulator.DefaultClientID, "SDK_CLIENT_SECRET="+emulator.DefaultClientSecret, "SDK_JWT="+jwt, "SSL_CERT_FILE="+ca, "RUST_LOG=warn")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the official SDK: %w", err)
	}
	return count(e, proxy)
}

// bridge discovers the endpoint and writes to it with the bridge's client.
func bridge(ctx context.Context, workspace, ca string) (endpoint, transport string, err error) {
	c, err := zerobus.New(zerobus.Config{Settings: zerobus.Settings{WorkspaceURL: workspace, ClientID: emulator.DefaultClientID,
		ClientSecret: emulator.DefaultClientSecret, Table: table, CAFile: ca, RecordFormat: zerobus.FormatJSON}}, zap.NewNop(), nil)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if err := c.Decide(ctx); err != nil {
		return "", "", err
	}
	var all [][]byte
	for n := range rows {
		all = append(all, fmt.Appendf(nil, `{"message_id":"own client-%d"}`, n))
	}
	_, err = c.Write(ctx, 0, all)
	state := c.State()
	return state.Endpoint, state.Transport, err
}

// token returns a JWT that the emulator's federation policy trusts.
func token() (string, error) {
	claims, err := json.Marshal(map[string]any{"iss": policy.Issuer, "aud": policy.Audience, "sub": policy.Subject, "exp": time.Now().Add(time.Hour).Unix()})
	return "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".signature", err
}

// count compares the rows in the table with those that were written.
func count(e *emulator.Emulator, proxy *connectproxy.Proxy) error {
	got := map[string]int{}
	for _, row := range e.Table(table).Rows(nil) {
		var in struct {
			ID string `json:"message_id"`
		}
		if err := json.Unmarshal(row.JSON, &in); err != nil {
			return err
		}
		got[in.ID[:strings.LastIndexByte(in.ID, '-')]]++
	}
	for _, kind := range []string{"own client", "sdk-json", "sdk-protobuf", "sdk-exchanged"} {
		fmt.Printf("%-14s %d rows\n", kind, got[kind])
		if got[kind] != rows {
			return fmt.Errorf("%s: %d rows in the table, want %d", kind, got[kind], rows)
		}
	}
	if asked := strings.Join(proxy.Asked(), ", "); asked != e.EndpointHost()+":443" {
		return fmt.Errorf("the proxy was asked for %s, want %s:443 only", asked, e.EndpointHost())
	}
	return nil
}
