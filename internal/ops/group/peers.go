package group

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/datafly/bridge/internal/ops"
)

// answer is what one peer answered, or why it did not.
type answer struct {
	address string // host:port, or a name that did not resolve
	self    bool   // it is this process, and status is empty
	status  ops.Status
	err     error
	since   time.Time // of err, as far as was asked
}

// newTransport returns a transport without a proxy: the token is for the peers only.
func newTransport() *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
}

// askPeers asks every address of every peer for its own status, sorted by address. It
// fails with no error: each answer has its own.
func (v *View) askPeers(ctx context.Context) ([]answer, error) {
	var token string
	var tokenErr error
	if v.cfg.Token != nil {
		token, tokenErr = v.cfg.Token()
	}
	answers := v.addresses(ctx)
	var all errgroup.Group
	all.SetLimit(parallel)
	for i := range answers {
		a := &answers[i]
		switch {
		case a.err != nil:
		case v.self[a.address]:
			a.self = true
		case tokenErr != nil:
			a.err = fmt.Errorf("not asked, because the token cannot be read; check ops.token_file: %w", tokenErr)
		default:
			all.Go(func() error { a.status, a.err = v.ask(ctx, a.address, token); return nil })
		}
	}
	_ = all.Wait() // it has none
	mine := v.cfg.Self().Instance
	seen := make(map[string]bool)
	once := answers[:0]
	for _, a := range answers {
		if a.err == nil {
			id := cmp.Or(a.status.Instance, a.address)
			if a.self || id == mine {
				v.self[a.address], a.self, id = true, true, mine
			}
			if seen[id] { // by another of its addresses
				continue
			}
			seen[id] = true
		}
		once = append(once, a)
	}
	silent := make(map[string]time.Time)
	for i := range once {
		if a := &once[i]; a.err != nil {
			if a.since = v.silent[a.address]; a.since.IsZero() {
				a.since = time.Now()
			}
			silent[a.address] = a.since
		}
	}
	v.silent = silent
	return once, nil
}

// addresses returns the addresses of the peers, each once, and the names that did not
// resolve with the error.
func (v *View) addresses(ctx context.Context) []answer {
	var mu sync.Mutex
	found := make(map[string]error)
	var all errgroup.Group
	all.SetLimit(parallel)
	for _, peer := range v.cfg.Peers {
		host, port, ok := ops.PeerAddress(peer)
		if !ok {
			found[peer] = errors.New("is neither host nor host:port; correct ops.peers")
			continue
		}
		all.Go(func() error {
			ips, err := v.cfg.Resolve(ctx, host)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && len(ips) == 0 {
				err = errors.New("the name has no address")
			}
			if err != nil {
				found[peer] = fmt.Errorf("%w; correct ops.peers, or wait until the name resolves", err)
			}
			for _, ip := range ips {
				found[net.JoinHostPort(ip.Unmap().String(), port)] = nil
			}
			return nil
		})
	}
	_ = all.Wait() // it has none
	var out []answer
	for _, address := range slices.Sorted(maps.Keys(found)) {
		if len(out) == ops.MaxPeers {
			return append(out, answer{address: address, err: fmt.Errorf("not asked, nor are %d more: the bound is %d addresses", len(found)-len(out)-1, ops.MaxPeers)})
		}
		out = append(out, answer{address: address, err: found[address]})
	}
	return out
}

// refusals are the remedies for answers without a status.
var refusals = map[int]string{
	http.StatusUnauthorized:       "it refuses the token of this process; give all members the same ops.token or ops.token_file",
	http.StatusMisdirectedRequest: "it answers to its loopback only; set its ops.address to :9400",
	http.StatusTooManyRequests:    "it has got too many wrong tokens from this address; give all members the same ops.token or ops.token_file",
	http.StatusServiceUnavailable: "it has too many requests, or cannot read its ops.token_file; see its log",
}

// ask returns the status of one process. It follows no redirect: the token is for the
// configured peers only.
func (v *View) ask(ctx context.Context, address, token string) (s ops.Status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status?history=true&scope="+ops.ScopeProcess, nil)
	if err != nil {
		return s, fmt.Errorf("%w; correct ops.peers", err)
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := v.transport.RoundTrip(req)
	if err != nil {
		return s, explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("HTTP %d: %s", resp.StatusCode, cmp.Or(refusals[resp.StatusCode], "that is not the status of a bridge; correct ops.peers"))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return s, explain(err)
	case len(body) > maxBody:
		return s, fmt.Errorf("its answer is larger than %d bytes; correct ops.peers, or give it fewer partitions", maxBody)
	case json.Unmarshal(body, &s) != nil || s.State == "":
		return ops.Status{}, errors.New("it did not answer with the status of a bridge; correct ops.peers")
	}
	for i := range s.Integrations {
		s.Integrations[i].Config = nil // it is large and not shown
	}
	return s, nil
}

func explain(err error) error {
	var asking *url.Error
	if errors.As(err, &asking) {
		err = asking.Err // without the address, which is shown beside it
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v; see whether the process and its network work", peersTimeout)
	}
	return fmt.Errorf("%w; see whether the process runs and ops.address is reachable", err)
}
