package zerobus

import (
	"bytes"
	"net/http"
	"strings"
)

// newREST returns the transport that posts to the Zerobus endpoint:
//
//	POST {endpoint}/zerobus/v1/tables/{catalog.schema.table}/insert
//	[{…},{…}]
//
// The body is an array for a single row too. The two headers that name table
// and workspace were asked for by earlier releases of the service: the table's
// name as it is, and left out where it is not ASCII, which headers carry badly.
// https://docs.databricks.com/aws/en/ingestion/zerobus-ingest
func newREST(set settings, tokens *tokens, client *http.Client, advice adviser) *poster {
	header := map[string]string{
		"Content-Type":           "application/json",
		"User-Agent":             set.UserAgent,
		"unity-catalog-endpoint": set.base.String(),
	}
	if name := set.table.String(); !strings.ContainsFunc(name, func(r rune) bool { return r > '~' }) {
		header[tableHeader] = name
	}
	return &poster{op: opInsert, url: set.native.base.String() + "/zerobus/v1/tables/" + set.table.path() + "/insert", before: "[", after: "]",
		header: header, gzip: set.Gzip, timeout: set.Timeout, tokens: tokens, http: client, advice: advice,
		explain: func(e *Error, body []byte) {
			switch {
			case e.Status == http.StatusForbidden:
				// The privileges are written into the token: one minted before
				// a GRANT does not carry it.
				e.kind, e.reason = unauthorized, RetryUnauthorized
			case e.Status == http.StatusBadRequest && len(bytes.TrimSpace(body)) == 0:
				// The front door answers so for a host of another workspace or
				// region. No row is given up for it.
				e.kind = configuration
				e.Meaning = advice.names.Replace("the endpoint {endpoint} does not serve this workspace")
				e.Remedy = advice.names.Replace("check that the id and the region in zerobus.endpoint are those of {workspace}")
			}
		}}
}

// tableHeader routes a request or a stream at the service's edge.
const tableHeader = "x-databricks-zerobus-table-name"
