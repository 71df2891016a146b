// Package naive is the bridge one would write first, but for its Kafka client: decode
// with encoding/json into a struct, encode with encoding/json, post. It is kept as the
// yardstick of the benchmark and for nothing else: it knows no retries, no dead
// letters and no malformed events.
package naive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Config is the destination.
type Config struct {
	Workspace              string // URL
	CA                     []byte // PEM; nil for plain HTTP
	ClientID, ClientSecret string
	Table                  string // catalog.schema.table
}

// MaxRows is how many rows clients put into one request.
const MaxRows = 5000

// event is as much of an event as a row needs, in both spellings.
type event struct {
	Event        string `json:"event"`
	Type         string `json:"type"`
	MessageID    string `json:"message_id"`
	MessageID2   string `json:"messageId"`
	UserID       any    `json:"user_id"`
	UserID2      any    `json:"userId"`
	AnonymousID  string `json:"anonymous_id"`
	AnonymousID2 string `json:"anonymousId"`
	SourceID     string `json:"source_id"`
	SourceID2    string `json:"sourceId"`
	Timestamp    any    `json:"timestamp"`
	Context      struct {
		IP         string `json:"ip"`
		UserAgent  string `json:"user_agent"`
		UserAgent2 string `json:"userAgent"`
		Locale     string `json:"locale"`
		Timezone   string `json:"timezone"`
		Page       struct {
			URL      string `json:"url"`
			Referrer string `json:"referrer"`
		} `json:"page"`
	} `json:"context"`
}

type row struct {
	EventName      string  `json:"event_name"`
	EventType      string  `json:"event_type"`
	MessageID      string  `json:"message_id"`
	UserID         *string `json:"user_id"`
	AnonymousID    string  `json:"anonymous_id"`
	EventTimestamp *int64  `json:"event_timestamp"`
	IPAddress      string  `json:"ip_address"`
	UserAgent      string  `json:"user_agent"`
	Locale         string  `json:"locale"`
	Timezone       string  `json:"timezone"`
	PageURL        string  `json:"page_url"`
	PageReferrer   string  `json:"page_referrer"`
	SourceID       string  `json:"source_id"`
}

// A Writer posts rows. It is not safe for concurrent use.
type Writer struct {
	c      Config
	client *http.Client
	token  string
	rows   []row
}

// NewWriter returns a Writer with a token, which it does not renew.
func NewWriter(ctx context.Context, c Config) (*Writer, error) {
	transport := &http.Transport{}
	if c.CA != nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(c.CA)
	}
	w := &Writer{c: c, client: &http.Client{Transport: transport}}
	var err error
	w.token, err = Token(ctx, w.client, c)
	return w, err
}

// Close closes idle connections.
func (w *Writer) Close() { w.client.CloseIdleConnections() }

// Add makes a row of an event for the next Flush.
func (w *Writer) Add(value []byte) error {
	r, err := decode(value)
	w.rows = append(w.rows, r)
	return err
}

// Flush posts the rows in one request and returns once they are acknowledged.
func (w *Writer) Flush(ctx context.Context) error {
	if len(w.rows) == 0 {
		return nil
	}
	err := w.post(ctx)
	w.rows = nil
	return err
}

func decode(value []byte) (row, error) {
	var e event
	if err := json.Unmarshal(value, &e); err != nil {
		return row{}, err
	}
	r := row{
		EventName: e.Event, EventType: e.Type, MessageID: cmp.Or(e.MessageID, e.MessageID2),
		UserID: text(cmp.Or(e.UserID, e.UserID2)), AnonymousID: cmp.Or(e.AnonymousID, e.AnonymousID2),
		IPAddress: e.Context.IP, UserAgent: cmp.Or(e.Context.UserAgent, e.Context.UserAgent2),
		Locale: e.Context.Locale, Timezone: e.Context.Timezone,
		PageURL: e.Context.Page.URL, PageReferrer: e.Context.Page.Referrer, SourceID: cmp.Or(e.SourceID, e.SourceID2),
	}
	switch at := e.Timestamp.(type) {
	case string:
		t, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return row{}, err
		}
		micros := t.UnixMicro()
		r.EventTimestamp = &micros
	case float64: // milliseconds
		micros := int64(at) * 1000
		r.EventTimestamp = &micros
	}
	return r, nil
}

// text spells what came as a string or as a number.
func text(v any) *string {
	switch v := v.(type) {
	case string:
		return &v
	case float64:
		s := strconv.FormatFloat(v, 'f', -1, 64)
		return &s
	}
	return nil
}

// Token returns an access token of the service principal.
func Token(ctx context.Context, client *http.Client, c Config) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"all-apis"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Workspace+"/oidc/v1/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(c.ClientID, c.ClientSecret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	text, err := do(client, req)
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	return answer.AccessToken, err
}

func (w *Writer) post(ctx context.Context) error {
	body, err := json.Marshal(struct {
		Table   string `json:"table"`
		Records []row  `json:"records"`
	}{w.c.Table, w.rows})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.c.Workspace+"/api/2.0/streaming-ingestion/ingest", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Header.Set("Content-Type", "application/json")
	_, err = do(w.client, req)
	return err
}

func do(client *http.Client, req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", req.URL.Path, resp.Status)
	}
	return text, err
}
