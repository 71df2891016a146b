package zerobus

import (
	"cmp"
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

	"github.com/datafly/bridge/internal/databricks"
)

// Pseudo statuses of a remedy.
const (
	anyStatus        = 0
	anyRedirect      = 3  // 3xx
	anyConfiguration = -1 // an error of kind configuration
)

// answerRemedies holds what an answer means and what to do about it. The first row that
// matches is used. An empty code or list of operations matches any. In the texts {table},
// {quoted}, {principal}, {workspace}, {workspace_id}, {endpoint}, {token_url}, {token_file},
// {ingest} and {grants} are replaced with the configured names, and {key}, {address} and {reach}
// with those of the operation, so that statements can be pasted.
var answerRemedies = []struct {
	ops    string
	status int
	code   string
	cause
}{
	{opInsert, anyRedirect, "", cause{redirected, "set zerobus.endpoint to the Zerobus endpoint itself, not to the workspace or a login page"}},
	{"", anyRedirect, "", cause{redirected,
		"set zerobus.workspace_url to the workspace's own address, not to that of a login page or of Databricks' accounts console"}},

	{opToken, anyStatus, "invalid_authorization_details", cause{"the service principal lacks a privilege on the table, or the table does not exist",
		"check that {table} exists, and run: {grants}"}},
	{opToken, anyStatus, "invalid_scope", cause{"the token endpoint does not know the scope", "set zerobus.scope to all-apis"}},
	{opToken, anyStatus, "invalid_target", cause{"the workspace mints no tokens for the workspace id {workspace_id}",
		"set zerobus.workspace_id to the number after ?o= in the workspace's address, and check that zerobus.workspace_url ({workspace}) " +
			"is of the same workspace"}},
	{opToken, anyStatus, "unsupported_grant_type", cause{"the token endpoint does not serve this grant",
		"check zerobus.token_url ({token_url}), and use zerobus.client_secret where tokens cannot be exchanged"}},
	{opToken, anyStatus, "invalid_client", causeClient},
	{opToken, 400, "", causeClient},
	{opToken, 401, "", causeClient},
	{opToken, 403, "", cause{"the workspace does not let this client reach its token endpoint",
		"add service principal {principal} to the workspace, and check its network policies and IP access lists"}},
	{opToken, 404, "", cause{"there is no token endpoint at {token_url}", "check zerobus.workspace_url ({workspace}) and zerobus.token_url"}},

	{opRows, 400, "", causeRow},
	{opRows, 422, "", causeRow},
	{opRows, 403, "", cause{"service principal {principal} may not write to {table}", "run: {grants}"}},
	{opRows, 413, "", causeTooLarge},

	{opIngest, 401, "", cause{"the token was refused, and a fresh one too",
		"check that service principal {principal} is in the workspace {workspace} and that its tokens come from the same one ({token_url})"}},
	{opIngest, 404, "ENDPOINT_NOT_FOUND", cause{"the workspace serves no ingest API at {ingest}",
		"set zerobus.transport to auto, and the bridge finds the Zerobus endpoint of the workspace; " +
			"if it should have the API, check that Zerobus Ingest is enabled on the workspace"}},
	{opIngest, 404, "", cause{"there is no table {table}, or no Zerobus Ingest on the workspace",
		"check the full name catalog.schema.table, create the table (bridge ddl prints the statements), " +
			"and check that Zerobus Ingest is enabled on {workspace}"}},
	{opIngest, 501, "", cause{"the service does not support this table or one of its features",
		"use a managed Delta table outside default storage, in the workspace's own region"}},

	{opInsert, 401, "", cause{"the endpoint refused the token, and a fresh one too",
		"check that zerobus.workspace_url ({workspace}), zerobus.endpoint ({endpoint}) and the workspace id {workspace_id} belong together"}},
	{opInsert, 404, "", cause{"the endpoint {endpoint} knows no table {table}",
		"check the full name catalog.schema.table and the region of zerobus.endpoint, and create the table (bridge ddl prints the statements)"}},
	{opInsert, 412, "", causeTableKind},
	{opInsert, 501, "", cause{"the endpoint does not support this table, one of its features or this transport",
		"use a managed Delta table outside default storage, and check that {endpoint} is a Zerobus endpoint in the workspace's own region{or_by_hand}"}},

	{opColumns, 401, "", causeUnreadable},
	{opColumns, 403, "", causeUnreadable},
	{opColumns, 404, "", cause{"there is no table {table}, or service principal {principal} may not see it in Unity Catalog",
		"check the full name catalog.schema.table, create the table (bridge ddl prints the statements), and run: {grants}"}},

	{opDiscover, 401, "", cause{"the workspace refused the token of service principal {principal}",
		"check that the service principal is in the workspace {workspace}; else {by_hand}"}},
	{opDiscover, 403, "", cause{"service principal {principal} may not ask the workspace for this", "{by_hand}"}},
	{opDiscover, 404, "", cause{"no Unity Catalog metastore is assigned to the workspace",
		"have an account admin assign one to {workspace}; else {by_hand}"}},
	{opDiscover, anyConfiguration, "", cause{"the workspace does not name its Zerobus endpoint", "{by_hand}"}},

	{"", 407, "", cause{"the proxy asks for credentials", "set them in HTTPS_PROXY, or exempt the workspace with NO_PROXY"}},
	{"", 429, "", cause{"the service asks to slow down",
		"nothing, the bridge waits and retries; if it lasts, set zerobus.rate_limit or ask Databricks for a higher quota"}},
	{"", 408, "", causeBusy},
	{"", 425, "", causeBusy},
	{opInsert, anyConfiguration, "", cause{rejected, "check zerobus.endpoint ({endpoint}) and what stands between the bridge and it"}},
	{"", anyConfiguration, "", cause{rejected,
		"check zerobus.workspace_url ({workspace}), the paths set under zerobus, and what stands between the bridge and the workspace"}},
	{"", anyStatus, "", causeBusy},
}

const (
	redirected    = "{address} redirects the request, and credentials do not follow redirects"
	badTable      = "the service cannot write to a table of this kind"
	moveTable     = "make {table} a managed Delta table outside default storage, in the workspace's own region"
	grantRead     = "run, if columns are to be checked: {grants}"
	rejected      = "the service does not take this request"
	reachEndpoint = "check that the bridge reaches {endpoint}: name resolution, network policies, IP access lists, HTTPS_PROXY; " +
		"where gRPC cannot pass, use zerobus.transport rest"
)

// cause is the meaning of an error and its remedy.
type cause struct{ meaning, remedy string }

var (
	causeBusy   = cause{"the service is not ready to answer", "nothing, the bridge retries; if it lasts, look at the workspace's status page"}
	causeClient = cause{"the client id or the client secret is wrong, or the secret was rotated or has expired",
		"generate a new OAuth secret for service principal {principal} and set it as zerobus.client_secret"}
	causeNoSecret = cause{"the client secret could not be read", "check zerobus.client_secret or the file it comes from"}
	causeNoJWT    = cause{"there is no token to exchange in {token_file}",
		"let zerobus.token_exchange.token_file name a file with a JWT of the identity provider and nothing else"}
	causeRow = cause{"at least one row cannot be ingested; usually it carries a column the table lacks, or a value of another type than the column's",
		"compare the row with the columns of {quoted}: add the column, or fix or remove its mapping in the blueprint; " +
			"bridge check compares the two"}
	causeUnreadable  = cause{"service principal {principal} may not read the columns of {table} from Unity Catalog", grantRead}
	causeConnection  = cause{"the connection failed", "{reach}"}
	causeProxy       = cause{"the proxy could not be reached", "check the address in HTTPS_PROXY, or exempt {host_port} with NO_PROXY"}
	causeRoots       = cause{"the certificate authorities could not be read", "check the file named by zerobus.ca_file"}
	causeDNS         = cause{"the host name could not be resolved", "check the spelling of {key} ({address}) and the name servers of this machine{or_by_hand}"}
	causeCertificate = cause{"the server's certificate is not trusted",
		"check {key} ({address}); behind a TLS-inspecting proxy name its authority in zerobus.ca_file"}
	causeTimeout  = cause{"no answer came in time", "{reach}; raise zerobus.timeout if the service is only slow"}
	causeSilence  = cause{"the service, or the network before it, has gone silent", "{reach}"}
	causeMisread  = cause{"the answer does not confirm the request", "check that nothing between the bridge and {address} answers in its place"}
	causeTooLarge = cause{"the batch has more bytes or rows than the service takes in one request",
		"lower delivery.max_bytes or delivery.max_rows; a single row of this size cannot be ingested"}
	causeTableKind      = cause{badTable, moveTable}
	causeDefaultStorage = cause{badTable,
		"ask Databricks about your region and workspace: not every one takes tables in default storage yet; else " + moveTable}
	causeDescriptor = cause{"the service cannot use the protobuf descriptor that the bridge made for the table's columns",
		"upgrade the bridge, or set zerobus.record_format to json"}
	causeCreate = cause{"the service opens no stream for rows of this shape to {table}",
		"compare the blueprint's columns with the table's (bridge check shows both) and fix either; " +
			"the table must be a managed Delta table outside default storage"}
	causeForeignStatus = cause{"this refusal is not in the form of the service, so no row is given up for it ({endpoint} answered)",
		"check what stands between the bridge and {endpoint}, such as a proxy or a gateway; the bridge retries"}
	causeOtherWorkspace = cause{"the endpoint {endpoint} does not serve this workspace",
		"check that the id and the region in {endpoint} are those of {workspace}{or_by_hand}"}
)

// remedies fills the texts with the configured names.
type remedies struct{ names map[string]*strings.Replacer } // by operation

// found is whether the workspace named the endpoint and the configuration does not.
func newRemedies(s settings, found bool) remedies {
	var endpoint, id, orByHand string
	if s.native != nil {
		endpoint, id = s.native.target, s.native.workspaceID
	}
	if found {
		orByHand = "; the workspace named this endpoint: if it is another, " + byHand(s, id)
	}
	r := remedies{names: map[string]*strings.Replacer{}}
	for _, op := range []string{opToken, opIngest, opInsert, opColumns, opDiscover} {
		key, address, host := "zerobus.workspace_url", s.base.String(), hostPort(s.base)
		if op == opInsert {
			if key, address, host = "zerobus.endpoint", endpoint, endpoint; found {
				key = "the endpoint that the workspace named"
			}
		} else if u, err := url.Parse(s.token); op == opToken && err == nil && !strings.HasPrefix(s.token, s.base.String()+"/") {
			key, address, host = "zerobus.token_url", u.Scheme+"://"+u.Host, hostPort(u)
		}
		reach := reachHost(host)
		if op == opInsert {
			reach = strings.ReplaceAll(reachEndpoint, "{endpoint}", endpoint) + orByHand
		}
		r.names[op] = strings.NewReplacer("{key}", key, "{address}", address, "{host_port}", host, "{reach}", reach,
			"{endpoint}", endpoint, "{workspace_id}", id, "{workspace}", s.base.String(), "{token_url}", s.token, "{ingest}", s.ingest,
			"{by_hand}", byHand(s, id), "{or_by_hand}", orByHand, "{table}", s.table.String(), "{quoted}", s.table.Quoted(), "{principal}", s.ClientID, "{token_file}", s.TokenExchange.TokenFile,
			"{grants}", strings.Join(Grants(s.table, s.ClientID), " "))
	}
	return r
}

// domains are the ends of a workspace's host name, and of its Zerobus endpoint's.
var domains = []string{"cloud.databricks.com", "azuredatabricks.net", "gcp.databricks.com"}

// byHand names the keys that replace what the workspace does not say. id may be empty.
func byHand(s settings, id string) string {
	domain := domains[0] + " (on Azure " + domains[1] + ", on Google Cloud " + domains[2] + ")"
	for _, d := range domains {
		if strings.HasSuffix(s.base.Hostname(), "."+d) {
			domain = d
		}
	}
	id = cmp.Or(id, "<workspace id>")
	return fmt.Sprintf("set zerobus.endpoint to %s.zerobus.<region>.%s and zerobus.workspace_id to %s: "+
		"the id is the number after ?o= in the workspace's address in the browser, the region is the workspace's own, such as us-west-2", id, domain, id)
}

// discovery explains what the workspace does not say about its endpoint. id is its id, if known.
func (c *Client) discovery(err error, id string) error {
	answer, answered := errors.AsType[*databricks.Error](err)
	if answered {
		id = cmp.Or(id, answer.WorkspaceID)
	}
	s := c.set
	r := newRemedies(s, false)
	r.names[opDiscover] = strings.NewReplacer("{by_hand}", byHand(s, id), "{or_by_hand}", "", "{workspace}", s.base.String(), "{principal}", s.ClientID,
		"{key}", "zerobus.workspace_url", "{address}", s.base.String(), "{host_port}", hostPort(s.base), "{reach}", reachHost(hostPort(s.base))+"; else "+byHand(s, id))
	e := r.byWorkspace(opDiscover, err)
	switch {
	case e.Op != opDiscover, !answered:
	case e.Err != nil:
		e.Err = fmt.Errorf("%s: %w", answer.Call, e.Err)
	default:
		e.Err = errors.New(answer.Call)
	}
	return e
}

// byWorkspace explains an error of a call of the workspace's APIs. That of a token has its own.
func (r remedies) byWorkspace(op string, err error) *Error {
	e, ofToken := errors.AsType[*Error](err)
	answer, answered := errors.AsType[*databricks.Error](err)
	switch {
	case ofToken:
		return e
	case !answered:
		return r.byAnswer(&Error{Op: op, Err: err, kind: configuration})
	case answer.Status == 0:
		return r.network(op, cmp.Or(answer.Err, err))
	case answer.Status/100 == 2:
		return r.misread(op, answer.Status, answer.Err)
	}
	e = &Error{Op: op, Status: answer.Status, Code: answer.Code, Message: answer.Message, RequestID: answer.RequestID, RetryAfter: answer.RetryAfter}
	if e.kind, e.reason = classify(op, e.Status); e.kind != transient {
		e.kind = configuration // nothing here is about a row
	}
	return r.byAnswer(e)
}

func reachHost(host string) string {
	return "check that the bridge reaches " + host + ": network policies, IP access lists, HTTPS_PROXY"
}

// byAnswer sets e.Meaning and e.Remedy from its operation, status, code and kind.
func (r remedies) byAnswer(e *Error) *Error {
	for _, row := range answerRemedies {
		sameStatus := row.status == anyStatus || row.status == e.Status || row.status == anyRedirect && e.Status/100 == 3 ||
			row.status == anyConfiguration && e.kind == configuration
		sameOp := row.ops == "" || strings.Contains(row.ops, e.Op)
		if sameStatus && sameOp && (row.code == "" || row.code == e.Code) {
			return r.byCause(e, row.cause)
		}
	}
	return e
}

func (r remedies) byCause(e *Error, why cause) *Error {
	e.Meaning, e.Remedy = r.names[e.Op].Replace(why.meaning), r.names[e.Op].Replace(why.remedy)
	return e
}

// network explains an attempt that brought no answer.
func (r remedies) network(op string, err error) *Error {
	e := &Error{Op: op, Err: err, kind: transient, reason: RetryNetwork}
	dial, dialed := errors.AsType[*net.OpError](err)
	timeout, timed := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	switch {
	case dialed && dial.Op == "proxyconnect":
		return r.byCause(e, causeProxy)
	case is[rootsError](err):
		e.kind, e.reason = configuration, ""
		return r.byCause(e, causeRoots)
	case is[*net.DNSError](err):
		return r.byCause(e, causeDNS)
	case is[x509.UnknownAuthorityError](err), is[x509.HostnameError](err), is[x509.CertificateInvalidError](err), is[tls.RecordHeaderError](err):
		return r.byCause(e, causeCertificate)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), timed && timeout.Timeout():
		e.reason = RetryTimeout
		return r.byCause(e, causeTimeout)
	}
	return r.byCause(e, causeConnection)
}

// silent explains a stream on which nothing came in time.
func (r remedies) silent(err error) *Error {
	return r.byCause(&Error{Op: opInsert, Err: err, kind: transient, reason: RetryTimeout}, causeSilence)
}

// misread explains an answer of success without the content of one.
func (r remedies) misread(op string, status int, err error) *Error {
	return r.byCause(&Error{Op: op, Status: status, Err: err, kind: transient, reason: RetryMismatch}, causeMisread)
}

// foreign explains an answer to rows that is not in the service's form: it confirms
// nothing, and no row is given up for it.
func (r remedies) foreign(op, url string, resp *http.Response, secrets []string, err error) *Error {
	media := "no content type"
	if text := databricks.Clean(resp.Header.Get("Content-Type"), 100, secrets...); text != "" {
		media = fmt.Sprintf("content type %q", text)
	}
	return &Error{Op: op, Status: resp.StatusCode, Err: err, RequestID: databricks.RequestID(resp.Header, secrets),
		RetryAfter: databricks.RetryAfter(resp.Header.Get("Retry-After"), time.Now()), kind: transient, reason: RetryMismatch,
		Meaning: fmt.Sprintf("this is not the service's answer, so it does not confirm the rows and refuses none (%s answered %d with %s)",
			url, resp.StatusCode, media),
		Remedy: "check what stands between the bridge and that address, such as a proxy, a gateway or a captive portal: have it pass the request on, " +
			"or exempt the host with NO_PROXY; the bridge retries"}
}

// errorNumber is the service's own number for a failure. Decisions by it are safe if it
// is wrong: an announced end is not logged, and a kind of table is no fault of a row.
var errorNumber = regexp.MustCompile(`Error Code: (\d{1,9})\b`)

const numberAge = "6002" // the stream reached its maximum age

// tableNumbers are the numbers about the table or the form of all rows.
var tableNumbers = map[string]cause{
	"4024": causeDefaultStorage, // a table in default storage
	"4033": causeDescriptor,     // a descriptor that is not self-contained
}

func numberIn(text string) string {
	if m := errorNumber.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// aboutSize reports whether a text is about a message or batch over a size limit, as
// the service and the common gRPC codecs word it. It only decides whether to split a batch.
func aboutSize(text string) bool { return sizeWords.MatchString(text) }

var sizeWords = regexp.MustCompile(`(?i)message length too large|message .{0,40}larger than max|message exceeds maximum size|batch size exceeds maximum`)

// classify returns the kind of a status outside 2xx and the label of a retry. The privileges
// are part of a token for the endpoint: one minted before a GRANT lacks it.
func classify(op string, status int) (kind, string) {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden && op == opInsert:
		return unauthorized, RetryUnauthorized
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity:
		return refused, ""
	case status == http.StatusRequestEntityTooLarge:
		return tooLarge, ""
	case status == http.StatusTooManyRequests:
		return transient, RetryThrottled
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500 && status != http.StatusNotImplemented:
		return transient, RetryUnavailable
	}
	return configuration, ""
}
