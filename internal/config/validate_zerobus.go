package config

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

func (v *checker) zerobus() {
	z := &v.c.Zerobus
	v.workspaceURL()
	v.secret(z.ClientSecretSource())
	v.tableName()
	v.endpoint("zerobus.token_url", z.TokenURL)
	if v.ok("zerobus.scope") && z.Scope == "" {
		v.fail("zerobus.scope", "must not be empty", "leave it out for all-apis")
	}
	if p := z.IngestPath; v.ok("zerobus.ingest_path") && (!strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsAny(p, "?# ")) {
		v.fail("zerobus.ingest_path", "must be a path on the workspace that begins with one slash, without a query", "leave it out for /api/2.0/streaming-ingestion/ingest")
	}
	v.duration("zerobus.timeout", z.Timeout, 100*time.Millisecond, 10*time.Minute)
	if v.ok("zerobus.rate_limit") && (math.IsNaN(z.RateLimit) || math.IsInf(z.RateLimit, 0) || z.RateLimit < 0) {
		v.fail("zerobus.rate_limit", "must be a number of rows per second, 0 or more", "write 0 for no limit")
	}
	v.native()
	v.readable("zerobus.ca_file", z.CAFile, "without it the system's authorities are trusted")
	v.size("zerobus.max_request_bytes", z.MaxRequestBytes, KiB, 10*MiB)
}

// native holds the keys of the transports on the Zerobus endpoint to their
// rules and brings the endpoint to the form scheme://host[:port].
func (v *checker) native() {
	z := &v.c.Zerobus
	if v.ok("zerobus.endpoint", "zerobus.transport") {
		switch {
		case z.Endpoint != "":
			text := z.Endpoint
			if !strings.Contains(text, "://") {
				text = "https://" + text
			}
			if u := v.url("zerobus.endpoint", text); u != nil {
				z.Endpoint = u.Scheme + "://" + u.Host
			}
		case z.Transport != "workspace" && !v.partial:
			v.fail("zerobus.endpoint", "is required with zerobus.transport "+z.Transport,
				"set it to the Zerobus endpoint of the workspace's region, such as 1234567890123456.zerobus.us-west-2.cloud.databricks.com")
		}
	}
	if v.ok("zerobus.workspace_id") && strings.ContainsFunc(z.WorkspaceID, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		v.fail("zerobus.workspace_id", "must be the id as it stands after ?o= in the workspace's address", "leave it out to take it from zerobus.endpoint")
	}
	v.count("zerobus.streams", z.Streams, 1, 64)
	v.size("zerobus.max_in_flight", z.MaxInFlight, MiB, GiB)
	if v.ok("zerobus.columns_refresh") && z.ColumnsRefresh != 0 {
		v.duration("zerobus.columns_refresh", z.ColumnsRefresh, time.Second, 24*time.Hour)
	}
}

// workspaceURL holds the address to its rules and brings it to the form
// scheme://host[:port].
func (v *checker) workspaceURL() {
	const key = "zerobus.workspace_url"
	text := v.c.Zerobus.WorkspaceURL
	if text == "" || !v.ok(key) {
		return
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u := v.url(key, text)
	if u != nil {
		v.c.Zerobus.WorkspaceURL = u.Scheme + "://" + u.Host
	}
}

// endpoint holds a full URL to the same rules; an empty one is the default.
func (v *checker) endpoint(key, text string) {
	if text != "" && v.ok(key) {
		v.url(key, text)
	}
}

// url parses text as an address that credentials are sent to, or tells what is
// wrong with it and returns nil. A password inside it is not repeated.
func (v *checker) url(key, text string) *url.URL {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		v.failValue(key, masked(text), "must be a URL", "write it as https://host")
	case u.User != nil:
		v.failValue(key, u.Redacted(), "must not hold a user or password", "take out everything up to the @")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		v.failValue(key, text, "must be https, since the client secret travels to it; http is accepted to loopback hosts only", "write https://"+u.Host)
	case u.Scheme != "https" && u.Scheme != "http":
		v.failValue(key, text, "must be an https URL", "write it as https://"+u.Host)
	case !validHost(u):
		v.failValue(key, text, "must hold a valid host and port", "copy the address from the browser")
	default:
		return u
	}
	return nil
}

// masked drops what stands before the last @, where a password may be.
func masked(text string) string {
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		return "..." + text[i:]
	}
	return text
}

func validHost(u *url.URL) bool {
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return false
		}
	}
	h := u.Hostname()
	return h != "" && !strings.ContainsFunc(h, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`"<>\^{|}`+"`", r)
	})
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// tableName splits a full table name over the three keys and holds each part
// to Unity Catalog's naming rules: no period, space, slash or control
// character, at most 255 characters
// (https://docs.databricks.com/en/sql/language-manual/sql-ref-names.html).
func (v *checker) tableName() {
	z := &v.c.Zerobus
	if !v.ok("zerobus.table") {
		return
	}
	if parts := strings.Split(z.Table, "."); len(parts) == 3 {
		full := z.Table
		for i, to := range []struct {
			key  string
			name *string
		}{{"zerobus.catalog", &z.Catalog}, {"zerobus.schema", &z.Schema}, {"zerobus.table", nil}} {
			part := unquote(parts[i])
			if to.name == nil {
				z.Table = part
			} else if *to.name == "" {
				*to.name = part
				v.origins[to.key] = v.origins["zerobus.table"]
			} else if unquote(*to.name) != part && v.ok(to.key) {
				v.fail(to.key, fmt.Sprintf("contradicts zerobus.table (%s)", full), "let zerobus.table hold the table's own name only, or take this key out")
			}
		}
	}
	for _, part := range []struct {
		key  string
		name *string
	}{{"zerobus.catalog", &z.Catalog}, {"zerobus.schema", &z.Schema}, {"zerobus.table", &z.Table}} {
		*part.name = unquote(*part.name)
		if *part.name == "" || !v.ok(part.key) {
			continue
		}
		if len(*part.name) > 255 || strings.ContainsFunc(*part.name, illegalInName) {
			remedy := "write the plain name, without quotes"
			if part.key == "zerobus.table" {
				remedy = "write the table's own name, or all of catalog.schema.table"
			}
			v.fail(part.key, "must be a Unity Catalog name: at most 255 characters, no period, space, slash or control character", remedy)
		}
	}
}

func illegalInName(r rune) bool {
	return r == '.' || r == ' ' || r == '/' || r == '`' || r < ' ' || r == 0x7f
}

// unquote takes the backticks off a name as SQL writes it.
func unquote(name string) string {
	if len(name) > 2 && name[0] == '`' && name[len(name)-1] == '`' {
		return name[1 : len(name)-1]
	}
	return name
}
