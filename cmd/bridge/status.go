package main

import (
	"bytes"
	"cmp"
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

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
)

const (
	statusTimeout  = 10 * time.Second
	statusMaxBytes = 32 << 20 // about 400 bytes a partition: enough for 80,000
)

func newStatusCommand() *cobra.Command {
	var address string
	var ready, watch bool
	var integration string
	scope := &choice{ops.ScopeProcess, []string{ops.ScopeProcess, ops.ScopeGroup}}
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of a running bridge",
		Long: `status shows whether a running bridge delivers and, if not, why and what to do, then
its sink, its buffer and its partitions. The exit code is 0 when it is ready, else 1.

With --scope group, it shows all members of the deployment: the problems first, then
a table of the processes and one of the integrations. With --integration as well, the
members and the partitions of that one follow. The exit code is 1 if a member does not
answer, if no member delivers an integration, or if Kafka does not answer. The members
must be in ops.peers; without it, the others are shown as Kafka knows them.

With --watch, it asks again each second until Ctrl-C, and shows the rows per second. On
a terminal each answer replaces the one before. Elsewhere each integration has one line
for each answer, or each answer is one line of JSON. The exit code is then 0.

A bridge with ops.token or ops.token_file requires that token. status reads it from
the configuration: --config, BRIDGE_OPS_TOKEN, BRIDGE_OPS_TOKEN_FILE or
--set ops.token_file=FILE. With --config or --set, the address is ops.address of that
configuration unless --address is given.`,
		Example: `  bridge status
  bridge status --address bridge-0.bridge:9400 --output json
  bridge status --set ops.token_file=token
  bridge status --ready
  bridge status --watch
  bridge status --scope group --integration default`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags := cmd.Flags(); !flags.Changed("address") && (flags.Changed("config") || flags.Changed("set")) {
				d, err := loadDeployment(cmd, "", true)
				if err != nil {
					return err
				}
				address = d.Base.Ops.Address
			}
			if ready && (integration != "" || scope.value != ops.ScopeProcess) {
				return &usageError{errors.New("--ready is about one process and all its integrations; leave out --ready, or --scope and --integration")}
			}
			target, err := statusURL(address)
			if err != nil {
				return err
			}
			token := func() (string, error) { return statusToken(cmd) }
			ask := func(ctx context.Context) (statusAnswer, error) {
				switch {
				case ready:
					return fetchReady(ctx, target)
				case scope.value == ops.ScopeGroup:
					return fetchGroup(ctx, target, integration, token)
				default:
					return fetchStatus(ctx, target, integration, token)
				}
			}
			if watch {
				tick := time.NewTicker(watchInterval)
				defer tick.Stop()
				w := statusWatch{ask: ask, out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr(), json: output.json(), look: styleOf(cmd, cmd.OutOrStdout())}
				return suggestAddress(w.run(cmd.Context(), tick.C))
			}
			answer, err := ask(cmd.Context())
			if err != nil {
				return suggestAddress(err)
			}
			text := string(answer.body)
			if !output.json() {
				text = styleOf(cmd, cmd.OutOrStdout()).Table(answer.text)
			}
			if err := printText(cmd.OutOrStdout(), text); err != nil {
				return err
			}
			if s := answer.status; !s.Ready {
				return &quietError{suggest(fmt.Errorf("bridge at %s is not ready: %s", target.Host, strings.Join(reasonCodes(s), ", ")), nextForState(s))}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "address", ops.DefaultAddress, "ops.address of the bridge: host:port or a URL")
	cmd.Flags().BoolVar(&ready, "ready", false, "show only whether it is ready, and why not; needs no token")
	cmd.Flags().BoolVar(&watch, "watch", false, "show the state each second until Ctrl-C, with the rows per second")
	cmd.Flags().Var(scope, "scope", "what to show: process, or group for all members of the deployment")
	cmd.Flags().StringVar(&integration, "integration", "", "show only this integration")
	config.AddFlags(cmd.Flags())
	output = addOutput(cmd)
	return cmd
}

// statusToken returns the token of the configuration. No flag takes it, since other
// users can read command lines.
func statusToken(cmd *cobra.Command) (string, error) {
	d, err := loadDeployment(cmd, "", true)
	if err != nil {
		return "", err
	}
	source, given := d.Base.Ops.TokenSource()
	if !given {
		return "", errors.New("name the configuration of that bridge with --config, or a file that holds the token with --set ops.token_file=FILE")
	}
	return source.Read()
}

// errStatusAddress does not quote the address: a URL may hold a password.
var errStatusAddress = &usageError{
	errors.New("--address is neither host:port nor a URL; use host:port, for example " + ops.DefaultAddress),
}

// suggestAddress suggests the key of the address, unless the error has a command.
func suggestAddress(err error) error {
	if given := (*suggestion)(nil); errors.As(err, &given) {
		return err
	}
	return suggest(err, "bridge help config ops.address")
}

// statusURL returns the URL of the bridge at an ops.address or a URL. An empty host
// means all interfaces to a listener and this machine to a client.
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
	// demo and the log print the address of the page.
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), strings.TrimSuffix(ops.LivePath, "/"))
	return u, nil
}

// statusAnswer is what a bridge answered: as it came, for people, and decoded.
type statusAnswer struct {
	body   []byte
	text   string
	status ops.Status
}

// fetchStatus returns the answer of /status; integration may be empty.
func fetchStatus(ctx context.Context, target *url.URL, integration string, token func() (string, error)) (a statusAnswer, err error) {
	body, err := askScope(ctx, target, ops.ScopeProcess, integration, token)
	if err == nil && (json.Unmarshal(body, &a.status) != nil || a.status.State == "") {
		err = errNoBridge(target)
	}
	var b strings.Builder
	_ = a.status.WriteText(&b) // into memory
	a.body, a.text = body, b.String()
	return a, err
}

// fetchGroup returns the answer of /status?scope=group. Its status has the problems as
// reasons.
func fetchGroup(ctx context.Context, target *url.URL, integration string, token func() (string, error)) (a statusAnswer, err error) {
	body, err := askScope(ctx, target, ops.ScopeGroup, integration, token)
	var group ops.GroupStatus
	if err == nil && (json.Unmarshal(body, &group) != nil || group.Scope != ops.ScopeGroup) {
		err = fmt.Errorf("%s did not answer with the status of a group; check that --address is the ops.address of a bridge of this version", target.Host)
	}
	var b strings.Builder
	_ = group.WriteText(&b, integration != "") // into memory
	return statusAnswer{body, b.String(), ops.Status{Ready: group.Ready, NotReady: group.Problems}}, err
}

// askScope returns the body of /status. It calls token, and sends the token, only if the
// bridge asks for one.
func askScope(ctx context.Context, target *url.URL, scope, integration string, token func() (string, error)) (body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	at, query := target.JoinPath("status"), url.Values{}
	if scope != ops.ScopeProcess {
		query.Set("scope", scope)
	}
	if integration != "" {
		query.Set("integration", integration)
	}
	at.RawQuery = query.Encode()
	code, body, err := askStatus(ctx, at, "")
	if err == nil && code == http.StatusUnauthorized {
		var secret string
		if secret, err = token(); err != nil {
			return nil, fmt.Errorf("%s asks for the token of its ops.token: %w", at.Host, err)
		}
		code, body, err = askStatus(ctx, at, secret)
	}
	if err == nil && code != http.StatusOK {
		err = refusedStatus(at, code)
		if code == http.StatusNotFound && integration != "" {
			enabled := ""
			if scope == ops.ScopeGroup {
				enabled = "enabled "
			}
			err = suggest(fmt.Errorf("the bridge at %s has no %sintegration %s", at.Host, enabled, shellWord(integration)), "bridge status --address "+shellWord(at.Host))
		}
	}
	return body, err
}

// fetchReady returns the answer of /readyz, with the part of a status that is in it. It
// needs no token.
func fetchReady(ctx context.Context, target *url.URL) (a statusAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	at := target.JoinPath("readyz")
	code, body, err := askStatus(ctx, at, "")
	if err == nil && code != http.StatusOK && code != http.StatusServiceUnavailable {
		err = refusedStatus(at, code)
	}
	var answer ops.Readiness
	if err == nil && (json.Unmarshal(body, &answer) != nil || answer.State == "") {
		err = errNoBridge(at)
	}
	var b strings.Builder
	_ = answer.WriteText(&b) // into memory
	return statusAnswer{body, b.String(), ops.Status{State: answer.State, Ready: answer.Ready, NotReady: answer.Reasons}}, err
}

func errNoBridge(at *url.URL) error {
	return fmt.Errorf("%s did not answer with the status of a bridge; check that --address is its ops.address", at.Host)
}

// statusRefusals are the causes and remedies of answers without a status.
var statusRefusals = map[int]string{
	http.StatusUnauthorized:       "refuses the token; give the one in the ops.token or ops.token_file of that bridge",
	http.StatusForbidden:          "answered HTTP 403; ask for access to it, or bypass the proxy with kubectl port-forward or an ssh tunnel",
	http.StatusMisdirectedRequest: "answers to localhost or an address only; give --address as 127.0.0.1 and the port of its ops.address",
	http.StatusTooManyRequests:    "has got too many wrong tokens from this address; wait a minute and give the right one",
	http.StatusServiceUnavailable: "answered HTTP 503; it has too many requests, or cannot read its ops.token_file: try again, then see its log",
}

func refusedStatus(at *url.URL, code int) error {
	other := fmt.Sprintf("answered HTTP %d; check that --address is the ops.address of a bridge", code)
	return fmt.Errorf("%s %s", at.Host, cmp.Or(statusRefusals[code], other))
}

// askStatus returns the code and the body of an answer. The body ends with a line break.
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
	// JSON readers take these as U+FFFD and blanks. Escaped by the output, they
	// would be no JSON.
	body = bytes.ReplaceAll(bytes.ToValidUTF8(body, []byte("\ufffd")), []byte("\r"), nil)
	if !bytes.HasSuffix(body, []byte("\n")) {
		body = append(body, '\n')
	}
	return resp.StatusCode, body, nil
}

// reasonCodes returns why the bridge is not ready, or its state.
func reasonCodes(s ops.Status) []string {
	if len(s.NotReady) == 0 {
		return []string{s.State}
	}
	codes := make([]string, 0, len(s.NotReady))
	for _, r := range s.NotReady {
		codes = append(codes, r.Code)
	}
	return codes
}

// nextForState is the command that explains the first reason. Temporary states have none.
func nextForState(s ops.Status) string {
	if len(s.NotReady) == 0 || s.NotReady[0].Code == s.State {
		return ""
	}
	return "bridge help troubleshooting " + shellWord(s.NotReady[0].Code)
}
