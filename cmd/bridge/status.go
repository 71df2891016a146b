package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/ops"
)

const (
	statusTimeout  = 10 * time.Second
	statusMaxBytes = 32 << 20 // about 400 bytes a partition: room for 80,000
)

// newStatusCommand makes `bridge status`, which asks a running bridge for its
// state. It fails when the bridge is not ready or cannot be reached.
func newStatusCommand() *cobra.Command {
	var address string
	output := outputText
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running bridge is doing",
		Long: "Show what a running bridge is doing: whether it delivers and, if not, why and what to do;\n" +
			"then its sink, its buffer and its partitions. The exit code is 0 when it is ready, else 1.",
		Example: "  bridge status\n" +
			"  bridge status --address bridge-0.bridge:9400 --output json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, err := statusURL(address)
			if err != nil {
				return err
			}
			body, snapshot, err := fetchStatus(cmd.Context(), target)
			if err != nil {
				return advise(err, "bridge help config ops.address")
			}
			if output == outputJSON {
				_, err = cmd.OutOrStdout().Write(body)
			} else {
				var text strings.Builder
				if err = snapshot.WriteText(&text); err == nil {
					_, err = io.WriteString(cmd.OutOrStdout(), styleOf(cmd, cmd.OutOrStdout()).table(text.String()))
				}
			}
			if err != nil {
				return fmt.Errorf("writing the status: %w", err)
			}
			if !snapshot.Ready {
				return &quietError{advise(fmt.Errorf("bridge at %s is not ready: %s", target.Host, strings.Join(reasonCodes(snapshot), ", ")),
					adviceOn(snapshot))}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "address", ops.DefaultAddress, "ops.address of the bridge: host:port or a URL")
	addOutput(cmd, &output)
	return cmd
}

// errStatusAddress does not quote the address: a URL may hold a password.
var errStatusAddress = &usageError{
	errors.New("--address is neither host:port nor a URL; use host:port, for example " + ops.DefaultAddress),
}

// statusURL turns what ops.address may hold, or a URL, into the URL of the
// status. An empty host means all interfaces to a listener and this machine
// to a client.
func statusURL(address string) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		host, port, err := net.SplitHostPort(address)
		if err != nil || strings.Contains(address, "@") {
			return nil, errStatusAddress
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "localhost"
		}
		address = "http://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errStatusAddress
	}
	// The page's address is what demo and the log print, and so what is at hand.
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), strings.TrimSuffix(ops.LivePath, "/"))
	return u.JoinPath("status"), nil
}

// fetchStatus returns the answer of /status as it came and as a Snapshot.
func fetchStatus(ctx context.Context, target *url.URL) ([]byte, ops.Snapshot, error) {
	var snapshot ops.Snapshot
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, snapshot, fmt.Errorf("asking for the status: %w; give --address as host:port", err)
	}
	// No proxy: a status comes from the bridge itself.
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	// Nor a redirect: the address may hold a password.
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, snapshot, fmt.Errorf("asking for the status: %w; start `bridge run`, or give its ops.address as --address", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, statusMaxBytes+1))
	switch {
	case err != nil:
		return nil, snapshot, fmt.Errorf("reading the status from %s: %w; try again", target.Host, err)
	case resp.StatusCode != http.StatusOK:
		return nil, snapshot, fmt.Errorf("%s answered HTTP %d; check that --address is the ops.address of a bridge", target.Host, resp.StatusCode)
	case len(body) > statusMaxBytes:
		return nil, snapshot, fmt.Errorf("the status from %s is larger than %d bytes; check that --address is the ops.address of a bridge", target.Host, statusMaxBytes)
	}
	if err := json.Unmarshal(body, &snapshot); err != nil || snapshot.State == "" {
		return nil, snapshot, fmt.Errorf("%s did not answer with the status of a bridge; check that --address is its ops.address", target.Host)
	}
	// Read as JSON once, these are U+FFFD and blanks; the output would escape them,
	// which in JSON is neither.
	body = bytes.ReplaceAll(bytes.ToValidUTF8(body, []byte("\ufffd")), []byte("\r"), nil)
	if !bytes.HasSuffix(body, []byte("\n")) {
		body = append(body, '\n')
	}
	return body, snapshot, nil
}

// reasonCodes says in a few words why the bridge is not ready.
func reasonCodes(s ops.Snapshot) []string {
	if len(s.NotReady) == 0 {
		return []string{s.State}
	}
	codes := make([]string, 0, len(s.NotReady))
	for _, r := range s.NotReady {
		codes = append(codes, r.Code)
	}
	return codes
}

// adviceOn is where the first reason is explained; states that pass by
// themselves are not.
func adviceOn(s ops.Snapshot) string {
	if len(s.NotReady) == 0 || s.NotReady[0].Code == s.State {
		return ""
	}
	return "bridge help troubleshooting " + shellWord(s.NotReady[0].Code)
}
