package zerobus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// advice says what an answer means and what to do about it. The first row that
// fits is taken; an empty code and status 0 fit any. In the texts {table},
// {quoted}, {principal}, {workspace}, {token_url}, {ingest} and {grants} stand
// for the names in use, so that a statement can be pasted as it is.
var adviceTable = []struct {
	op              string
	status          int
	code            string
	meaning, remedy string
}{
	{opToken, 0, "invalid_authorization_details",
		"the service principal lacks a privilege on the table, or the table does not exist",
		"check that {table} exists, and run: {grants}"},
	{opToken, 0, "invalid_scope",
		"the token endpoint does not know the scope",
		"set zerobus.scope to all-apis"},
	{opToken, 0, "invalid_target",
		"the workspace mints no tokens for the workspace id {workspace_id}",
		"set zerobus.workspace_id to the number after ?o= in the workspace's address, and check that zerobus.workspace_url ({workspace}) is of the same workspace"},
	{opToken, 0, "invalid_client", badClient, newSecret},
	{opToken, 400, "", badClient, newSecret},
	{opToken, 401, "", badClient, newSecret},
	{opToken, 403, "",
		"the workspace does not let this client reach its token endpoint",
		"add service principal {principal} to the workspace, and check its network policies and IP access lists"},
	{opToken, 404, "",
		"there is no token endpoint at {token_url}",
		"check zerobus.workspace_url ({workspace}) and zerobus.token_url"},

	{opIngest, 401, "",
		"the token was refused, and a fresh one too",
		"check that service principal {principal} is in the workspace {workspace} and that its tokens come from the same one ({token_url})"},
	{opIngest, 403, "",
		"service principal {principal} may not write to {table}",
		"run: {grants}"},
	{opIngest, 404, "ENDPOINT_NOT_FOUND",
		"the workspace serves no ingest API at {ingest}",
		"set zerobus.transport to grpc or rest, with the workspace's Zerobus endpoint as zerobus.endpoint; " +
			"if it should have the API, check that Zerobus Ingest is enabled on the workspace"},
	{opIngest, 404, "",
		"there is no table {table}, or no Zerobus Ingest on the workspace",
		"check the full name catalog.schema.table, create the table (bridge ddl prints the statements), and check that Zerobus Ingest is enabled on {workspace}"},
	{opIngest, 400, "", badRow, mendRow},
	{opIngest, 422, "", badRow, mendRow},
	{opIngest, 413, "", tooBig, lowerBatch},
	{opIngest, 501, "",
		"the service does not support this table or one of its features",
		"use a managed Delta table outside default storage, in the workspace's own region"},

	{opInsert, 400, "", badRow, mendRow},
	{opInsert, 422, "", badRow, mendRow},
	{opInsert, 401, "",
		"the endpoint refused the token, and a fresh one too",
		"check that zerobus.workspace_url ({workspace}), zerobus.endpoint ({endpoint}) and the workspace id {workspace_id} belong together"},
	{opInsert, 403, "",
		"service principal {principal} may not write to {table}",
		"run: {grants}"},
	{opInsert, 404, "",
		"the endpoint {endpoint} knows no table {table}",
		"check the full name catalog.schema.table and the region of zerobus.endpoint, and create the table (bridge ddl prints the statements)"},
	{opInsert, 412, "", badTable, moveTable},
	{opInsert, 413, "", tooBig, lowerBatch},
	{opInsert, 501, "",
		"the endpoint does not support this table, one of its features or this transport",
		"use a managed Delta table outside default storage, and check that {endpoint} is a Zerobus endpoint in the workspace's own region"},

	{opColumns, 401, "", unreadable, grantRead},
	{opColumns, 403, "", unreadable, grantRead},
	{opColumns, 404, "", unseen, createOrGrant},

	{"", 407, "",
		"the proxy asks for credentials",
		"set them in HTTPS_PROXY, or exempt the workspace with NO_PROXY"},
	{"", 408, "", busy, waitOut},
	{"", 425, "", busy, waitOut},
	{"", 429, "",
		"the service asks to slow down",
		"nothing, the bridge waits and retries; if it lasts, set zerobus.rate_limit or ask Databricks for a higher quota"},
}

const (
	badClient     = "the client id or the client secret is wrong, or the secret was rotated or has expired"
	newSecret     = "generate a new OAuth secret for service principal {principal} and set it as zerobus.client_secret"
	badRow        = "at least one row cannot be ingested; usually it carries a column the table lacks, or a value of another type than the column's"
	mendRow       = "compare the row with the columns of {quoted}: add the column, or mend or remove its mapping in the blueprint; bridge check compares the two"
	unreadable    = "service principal {principal} may not read the columns of {table} from Unity Catalog"
	grantRead     = "run, if columns are to be checked: {grants}"
	unseen        = "there is no table {table}, or service principal {principal} may not see it in Unity Catalog"
	badTable      = "the service cannot write to a table of this kind"
	createOrGrant = "check the full name catalog.schema.table, create the table (bridge ddl prints the statements), and run: {grants}"
	moveTable     = "make {table} a managed Delta table outside default storage, in the workspace's own region"
	earlyTable    = "ask Databricks about your region and workspace: not every one takes tables in default storage yet; else " + moveTable
	tooBig        = "the batch has more bytes or rows than the service takes in one request"
	lowerBatch    = "lower delivery.max_bytes or delivery.max_rows; a single row of this size cannot be ingested"
	badDescriptor = "the service cannot use the protobuf descriptor that the bridge made for the table's columns"
	useJSON       = "upgrade the bridge, or set zerobus.record_format to json"
	badStream     = "the service opens no stream for rows of this shape to {table}"
	mendStream    = "compare the blueprint's columns with the table's (bridge check shows both) and mend either; the table must be a managed Delta table outside default storage"

	reachEndpoint = "check that the bridge reaches {endpoint}: name resolution, network policies, IP access lists, HTTPS_PROXY; where gRPC cannot pass, use zerobus.transport rest"

	busy    = "the service is not ready to answer"
	waitOut = "nothing, the bridge retries; if it lasts, look at the workspace's status page"
)

// adviser fills the table's texts with the names in use.
type adviser struct {
	names *strings.Replacer
	set   settings
}

func newAdviser(s settings) adviser {
	var endpoint, id string
	if s.native != nil {
		endpoint, id = s.native.target, s.native.workspace
	}
	return adviser{set: s, names: strings.NewReplacer(
		"{endpoint}", endpoint,
		"{workspace_id}", id,
		"{table}", s.table.String(),
		"{quoted}", s.table.Quoted(),
		"{principal}", s.ClientID,
		"{workspace}", s.base.String(),
		"{token_url}", s.token,
		"{ingest}", s.ingest,
		"{grants}", strings.Join(Grants(s.table, s.ClientID), " "),
	)}
}

// fill sets e.Meaning and e.Remedy from its Op, Status and Code.
func (a adviser) fill(e *Error) *Error {
	e.Meaning, e.Remedy = a.names.Replace(busy), a.names.Replace(waitOut)
	if e.Status >= 300 && e.Status < 400 {
		e.Meaning = a.names.Replace("{workspace} sends us elsewhere, and credentials do not follow redirects")
		e.Remedy = "set zerobus.workspace_url to the workspace's own address, not to that of a login page or the account console"
		if e.Op == opInsert {
			e.Meaning = a.names.Replace("{endpoint} sends us elsewhere, and credentials do not follow redirects")
			e.Remedy = "set zerobus.endpoint to the Zerobus endpoint itself, not to the workspace or a login page"
		}
		return e
	}
	if e.kind == configuration {
		e.Meaning = "the service does not take this request"
		e.Remedy = a.names.Replace("check zerobus.workspace_url ({workspace}), the paths set under zerobus, and what stands between the bridge and the workspace")
		if e.Op == opInsert {
			e.Remedy = a.names.Replace("check zerobus.endpoint ({endpoint}) and what stands between the bridge and it")
		}
	}
	for _, row := range adviceTable {
		if (row.op == "" || row.op == e.Op) && (row.status == 0 || row.status == e.Status) && (row.code == "" || row.code == e.Code) {
			e.Meaning, e.Remedy = a.names.Replace(row.meaning), a.names.Replace(row.remedy)
			return e
		}
	}
	return e
}

// network explains an attempt that brought no answer.
func (a adviser) network(op string, err error) *Error {
	e := &Error{Op: op, Err: err, kind: transient, reason: RetryNetwork}
	key, host := a.asked(op)
	reach := "check that the bridge reaches " + hostPort(host) + ": network policies, IP access lists, HTTPS_PROXY"
	if op == opInsert {
		reach = reachEndpoint
	}
	var dns *net.DNSError
	var dial *net.OpError
	var timeout interface{ Timeout() bool }
	var unknownCA x509.UnknownAuthorityError
	var badHost x509.HostnameError
	var badCert x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var roots rootsError
	switch {
	case errors.As(err, &dial) && dial.Op == "proxyconnect":
		e.Meaning = "the proxy could not be reached"
		e.Remedy = "check the address in HTTPS_PROXY, or exempt " + hostPort(host) + " with NO_PROXY"
	case errors.As(err, &roots):
		e.Meaning, e.Remedy = "the certificate authorities could not be read", "check the file named by zerobus.ca_file"
		e.kind, e.reason = configuration, ""
	case errors.As(err, &dns):
		e.Meaning = "the host name could not be resolved"
		e.Remedy = "check the spelling of " + key + " (" + host + ") and the name servers of this machine"
	case errors.As(err, &unknownCA), errors.As(err, &badHost), errors.As(err, &badCert), errors.As(err, &record):
		e.Meaning = "the server's certificate is not trusted"
		e.Remedy = "check " + key + " (" + host + "); behind a TLS-inspecting proxy name its authority in zerobus.ca_file"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.Meaning = "no answer came in time"
		e.Remedy = reach + "; raise zerobus.timeout if the service is only slow"
		e.reason = RetryTimeout
	default:
		e.Meaning = "the connection failed"
		e.Remedy = reach
	}
	e.Meaning, e.Remedy = a.names.Replace(e.Meaning), a.names.Replace(e.Remedy)
	return e
}

// asked is the key that holds the address an operation goes to, and the address.
func (a adviser) asked(op string) (key, address string) {
	switch {
	case op == opInsert:
		return "zerobus.endpoint", a.set.native.target
	case op == opToken && !strings.HasPrefix(a.set.token, a.set.base.String()+"/"):
		if u, err := url.Parse(a.set.token); err == nil {
			return "zerobus.token_url", u.Scheme + "://" + u.Host
		}
	}
	return "zerobus.workspace_url", a.set.base.String()
}

// hostPort is an address as firewalls are asked to let it pass, with the port
// that its scheme stands for where it names none.
func hostPort(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address // host:port already
	}
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// misread explains an answer that says success and yet is not one.
func (a adviser) misread(op string, status int, cause error) *Error {
	e := &Error{Op: op, Status: status, Err: cause, kind: transient, reason: RetryMismatch}
	e.Meaning = "the answer does not confirm the request"
	host := "{workspace}"
	if op == opInsert {
		host = "{endpoint}"
	}
	e.Remedy = a.names.Replace("check that nothing between the bridge and " + host + " answers in its place")
	return e
}

// foreign explains an answer to rows that is not in the service's form: it
// confirms nothing, and no row is given up for it.
func (a adviser) foreign(op, url string, resp *http.Response, secrets []string, cause error) *Error {
	e := &Error{Op: op, Status: resp.StatusCode, Err: cause, RequestID: requestID(resp.Header, secrets),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()), kind: transient, reason: RetryMismatch}
	media := "no content type"
	if said := clean(resp.Header.Get("Content-Type"), 100, secrets...); said != "" {
		media = fmt.Sprintf("content type %q", said)
	}
	e.Meaning = fmt.Sprintf("this is not the service's answer, so it does not confirm the rows and refuses none (%s answered %d with %s)", url, resp.StatusCode, media)
	e.Remedy = "check what stands between the bridge and that address, such as a proxy, a gateway or a captive portal: have it pass the request on, " +
		"or exempt the host with NO_PROXY; the bridge retries"
	return e
}

// numbered puts what the service's own number says in place of what the status
// says.
func (a adviser) numbered(e *Error, number string) {
	switch number {
	case numberStorage:
		e.Meaning, e.Remedy = a.names.Replace(badTable), a.names.Replace(earlyTable)
	case numberDescriptor:
		e.Meaning, e.Remedy = badDescriptor, useJSON
	}
}

// aboutTable reports whether a number is about the table or the form of all
// rows, never about one row.
func aboutTable(number string) bool { return number == numberStorage || number == numberDescriptor }

// aboutSize reports whether the service's words are those for a message or a
// batch over its bound: its own, and those of the gRPC codecs there are.
// Only how a batch is taken apart depends on it.
func aboutSize(text string) bool { return sizeWords.MatchString(text) }

var sizeWords = regexp.MustCompile(`(?i)message length too large|message .{0,40}larger than max|message exceeds maximum size|batch size exceeds maximum`)

// late explains a stream on which nothing came in time.
func (a adviser) late(cause error) *Error {
	return &Error{Op: opInsert, Err: cause, kind: transient, reason: RetryTimeout,
		Meaning: "the service, or the network before it, has gone silent", Remedy: a.names.Replace(reachEndpoint)}
}

// classify returns the kind of a status outside 2xx and the retry label.
func classify(status int) (kind, string) {
	switch {
	case status == http.StatusUnauthorized:
		return unauthorized, RetryUnauthorized
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity:
		return refused, ""
	case status == http.StatusRequestEntityTooLarge:
		return tooLarge, ""
	case status == http.StatusTooManyRequests:
		return transient, RetryThrottled
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return transient, RetryUnavailable
	case status >= 500 && status != http.StatusNotImplemented:
		return transient, RetryUnavailable
	}
	return configuration, ""
}
