package zerobus

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
)

// endpoint is where Zerobus itself is served, and what a token for it is
// minted for.
type endpoint struct {
	base      *url.URL // scheme and host, the port only where it was given
	target    string   // host:port
	clear     bool     // no TLS: a loopback host
	workspace string   // the workspace's id
}

const (
	streamsMax     = 64
	maxInFlightMin = 1 << 20
	maxInFlightMax = 1 << 30
)

var plainID = regexp.MustCompile(`^[0-9A-Za-z-]{1,63}$`)

// parseNative fills in the defaults of what only grpc and rest use, and
// reports every problem at once.
func (s *settings) parseNative() (*endpoint, []error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	e, err := parseEndpoint(s.Endpoint)
	if err != nil {
		bad("endpoint: %w", err)
	} else {
		host, _, _ := strings.Cut(e.base.Hostname(), ".")
		if e.workspace = or(s.WorkspaceID, host); !plainID.MatchString(e.workspace) {
			bad("workspace_id %q is no workspace id; set the number after ?o= in the workspace's address", e.workspace)
		}
	}
	s.RecordFormat = or(s.RecordFormat, DefaultRecordFormat)
	switch s.RecordFormat {
	case FormatAuto, FormatProtobuf, FormatJSON:
	default:
		bad("record_format %q is not known; use %q, %q or %q", s.RecordFormat, FormatAuto, FormatProtobuf, FormatJSON)
	}
	if s.Streams == 0 {
		s.Streams = DefaultStreams
	}
	if s.Streams < 0 || s.Streams > streamsMax {
		bad("streams %d is out of range; set 1 to %d", s.Streams, streamsMax)
	}
	if s.MaxInFlight == 0 {
		s.MaxInFlight = DefaultMaxInFlight
	}
	if s.MaxInFlight < maxInFlightMin || s.MaxInFlight > maxInFlightMax {
		bad("max_in_flight %d is out of range; set %d to %d bytes", s.MaxInFlight, maxInFlightMin, maxInFlightMax)
	}
	if name := s.table.String(); s.Transport == TransportGRPC && strings.ContainsFunc(name, func(r rune) bool { return r > '~' }) {
		bad("table %q holds characters that gRPC metadata cannot carry; use transport rest, or a name in ASCII", name)
	}
	return e, errs
}

// parseEndpoint takes a host, host:port or URL. The text itself is not repeated
// in an error when it may hold a password.
func parseEndpoint(raw string) (*endpoint, error) {
	const such = "such as 1234567890123456.zerobus.us-west-2.cloud.databricks.com"
	text := strings.TrimSpace(raw)
	if text == "" {
		return nil, errors.New("it is empty; set the Zerobus endpoint of the workspace's region, " + such)
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is neither a host nor a URL; set one " + such)
	case u.User != nil:
		return nil, errors.New("it holds a user name or password; set client_id and client_secret instead")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return nil, fmt.Errorf("%q is not an https address; set one %s", text, such)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q holds more than a host and a port; set one %s", text, such)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("%q would send the token in clear; use https (http is for loopback hosts only)", text)
	}
	e := &endpoint{base: &url.URL{Scheme: u.Scheme, Host: u.Host}, clear: u.Scheme == "http"}
	port := u.Port()
	if port == "" {
		port = map[bool]string{false: "443", true: "80"}[e.clear]
	}
	e.target = net.JoinHostPort(u.Hostname(), port)
	return e, nil
}

// tokenParams returns what the token endpoint is asked besides a plain token:
// an audience, and the privileges on one table (RFC 9396). Form and names are
// those of Databricks' open Zerobus SDKs:
// https://github.com/databricks/zerobus-sdk
func (s *settings) tokenParams() url.Values {
	type grant struct {
		Type       string   `json:"type"`
		Privileges []string `json:"privileges"`
		ObjectType string   `json:"object_type"`
		ObjectPath string   `json:"object_full_path"`
		Operations []string `json:"operations,omitempty"`
	}
	const kind = "unity_catalog_privileges"
	t := s.table
	grants := []grant{
		{kind, []string{"USE CATALOG"}, "CATALOG", t.Catalog, nil},
		{kind, []string{"USE SCHEMA"}, "SCHEMA", t.Catalog + "." + t.Schema, nil},
		{kind, []string{"SELECT", "MODIFY"}, "TABLE", t.String(), []string{"zerobuswrite"}},
	}
	if s.OmitOperations {
		grants[2].Operations = nil
	}
	text, err := json.Marshal(grants)
	if err != nil {
		panic(err) // strings always marshal
	}
	return url.Values{
		"resource":              {"api://databricks/workspaces/" + s.native.workspace + "/zerobusDirectWriteApi"},
		"authorization_details": {string(text)},
	}
}
