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
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
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
	var ready bool
	output := outputText
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running bridge is doing",
		Long: "Show what a running bridge is doing: whether it delivers and, if not, why and what to do;\n" +
			"then its sink, its buffer and its partitions. The exit code is 0 when it is ready, else 1.\n\n" +
			"A bridge that has ops.token or ops.token_file asks for that token. It is taken from the\n" +
			"configuration: --config, BRIDGE_OPS_TOKEN, BRIDGE_OPS_TOKEN_FILE or --set ops.token_file=FILE.\n" +
			"With --config or --set, the address is that of the configuration unless --address is given.",
		Example: "  bridge status\n" +
			"  bridge status --address bridge-0.bridge:9400 --output json\n" +
			"  bridge status --set ops.token_file=token\n" +
			"  bridge status --ready",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags := cmd.Flags(); !flags.Changed("address") && (flags.Changed("config") || flags.Changed("set")) {
				cfg, err := statusConfig(cmd)
				if err != nil {
					return err
				}
				address = cfg.Ops.Address
			}
			target, err := statusURL(address)
			if err != nil {
				return err
			}
			fetch := fetchStatus
			if ready {
				fetch = fetchReady
			}
			body, snapshot, err := fetch(cmd.Context(), target, func() (string, error) { return statusToken(cmd) })
			if err != nil {
				return advise(err, "bridge help config ops.address")
			}
			if output == outputJSON {
				_, err = cmd.OutOrStdout().Write(body)
			} else {
				var text strings.Builder
				write := snapshot.WriteText
				if ready {
					write = snapshot.WriteReady
				}
				if err = write(&text); err == nil {
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
	cmd.Flags().BoolVar(&ready, "ready", false, "ask only whether it is ready, and why not; needs no token")
	config.AddFlags(cmd.Flags())
	addOutput(cmd, &output)
	return cmd
}

// statusConfig is the configuration that the command line names.
func statusConfig(cmd *cobra.Command) (*config.Config, error) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	o.Partial = true
	cfg, err := config.Load(o)
	if err != nil {
		return nil, &usageError{err}
	}
	return cfg, nil
}

// statusToken is the token of that configuration.
func statusToken(cmd *cobra.Command) (string, error) {
	cfg, err := statusConfig(cmd)
	if err != nil {
		return "", err
	}
	source, given := cfg.Ops.TokenSource()
	if !given {
		return "", errNoToken
	}
	return source.Read()
}

// errNoToken says where the token is looked for; no flag takes it, since other
// users can read command lines.
var errNoToken = errors.New("name the configuration of that bridge with --config, or a file that holds the token with --set ops.token_file=FILE")

// errStatusAddress does not quote the address: a URL may hold a password.
var errStatusAddress = &usageError{
	errors.New("--address is neither host:port nor a URL; use host:port, for example " + ops.DefaultAddress),
}

// statusURL turns what ops.address may hold, or a URL, into the URL of the
// bridge. An empty host means all interfaces to a listener and this machine
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
	return u, nil
}

// fetchStatus returns the answer of /status as it came and as a Snapshot. token is
// called, and the token sent, only if the bridge asks for it.
func fetchStatus(ctx context.Context, target *url.URL, token func() (string, error)) ([]byte, ops.Snapshot, error) {
	var snapshot ops.Snapshot
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	at := target.JoinPath("status")
	code, body, err := askStatus(ctx, at, "")
	if err == nil && code == http.StatusUnauthorized {
		var secret string
		if secret, err = token(); err != nil {
			return nil, snapshot, fmt.Errorf("%s asks for the token of its ops.token: %w", at.Host, err)
		}
		code, body, err = askStatus(ctx, at, secret)
	}
	if err != nil {
		return nil, snapshot, err
	}
	if code != http.StatusOK {
		return nil, snapshot, fmt.Errorf("%s %s", at.Host, refusedStatus(code))
	}
	if err := json.Unmarshal(body, &snapshot); err != nil || snapshot.State == "" {
		return nil, snapshot, notABridge(at)
	}
	return body, snapshot, nil
}

// fetchReady returns the answer of /readyz as it came and as the part of a Snapshot
// that is in it. It needs no token.
func fetchReady(ctx context.Context, target *url.URL, _ func() (string, error)) ([]byte, ops.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	at := target.JoinPath("readyz")
	code, body, err := askStatus(ctx, at, "")
	if err != nil {
		return nil, ops.Snapshot{}, err
	}
	if code != http.StatusOK && code != http.StatusServiceUnavailable {
		return nil, ops.Snapshot{}, fmt.Errorf("%s %s", at.Host, refusedStatus(code))
	}
	var answer ops.Readiness
	if err := json.Unmarshal(body, &answer); err != nil || answer.State == "" {
		return nil, ops.Snapshot{}, notABridge(at)
	}
	return body, ops.Snapshot{State: answer.State, Live: true, Ready: answer.Ready, NotReady: answer.Reasons}, nil
}

func notABridge(at *url.URL) error {
	return fmt.Errorf("%s did not answer with the status of a bridge; check that --address is its ops.address", at.Host)
}

// refusedStatus says what to do about an answer that is no status.
func refusedStatus(code int) string {
	answered := fmt.Sprintf("answered HTTP %d; ", code)
	switch code {
	case http.StatusUnauthorized:
		return "refuses the token; give the one in the ops.token or ops.token_file of that bridge"
	case http.StatusForbidden:
		return answered + "ask for access to it, or go around what stands between with kubectl port-forward or an ssh tunnel"
	case http.StatusMisdirectedRequest:
		return "answers to localhost or an address only; give --address as 127.0.0.1 and the port of its ops.address"
	case http.StatusTooManyRequests:
		return "has got too many wrong tokens from this address; wait a minute and give the right one"
	case http.StatusServiceUnavailable:
		return answered + "it has too many requests, or cannot read its ops.token_file: try again, then see its log"
	default:
		return answered + "check that --address is the ops.address of a bridge"
	}
}

// askStatus returns the code of an answer and its body, which ends with a line
// break.
func askStatus(ctx context.Context, at *url.URL, token string) (code int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return 0, nil, fmt.Errorf("asking for the status: %w; give --address as host:port", err)
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// No proxy: a status comes from the bridge itself.
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	// Nor a redirect: the address may hold a password.
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("asking for the status: %w; start `bridge run`, or give its ops.address as --address", err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, statusMaxBytes+1))
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("reading the status from %s: %w; try again", at.Host, err)
	case len(body) > statusMaxBytes:
		return 0, nil, fmt.Errorf("the status from %s is larger than %d bytes; check that --address is the ops.address of a bridge", at.Host, statusMaxBytes)
	}
	// Read as JSON once, these are U+FFFD and blanks; the output would escape them,
	// which in JSON is neither.
	body = bytes.ReplaceAll(bytes.ToValidUTF8(body, []byte("\ufffd")), []byte("\r"), nil)
	if !bytes.HasSuffix(body, []byte("\n")) {
		body = append(body, '\n')
	}
	return resp.StatusCode, body, nil
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
