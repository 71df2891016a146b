package emulator

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// answer is a response before it is sent, so that a fault can come between.
type answer struct {
	status int
	header http.Header
	body   []byte
	code   string // error code, for the statistics; "" for success
	cut    bool   // the connection is cut after sent bytes of the body
	sent   int
}

func jsonAnswer(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error_code":"INTERNAL_ERROR","message":"answer cannot be encoded"}`)
	}
	return answer{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: body}
}

// apiError is a refusal in the shape of the workspace's REST APIs,
// {"error_code":…,"message":…}, or on the token endpoint in OAuth's.
type apiError struct {
	status  int
	code    string
	numeric int // when set, error_code is this number
	message string
	fault   *rowFault // the row to blame, or nil
}

func (e *apiError) answer(endpoint string) answer {
	var a answer
	if endpoint == EndpointToken {
		a = jsonAnswer(e.status, map[string]any{"error": e.code, "error_description": e.message})
		a.header.Set("Cache-Control", "no-store")
		if e.status == http.StatusUnauthorized {
			a.header.Set("WWW-Authenticate", `Basic realm="emulator"`)
		}
	} else {
		body := map[string]any{"error_code": e.code, "message": e.message}
		if e.numeric != 0 {
			body["error_code"] = e.numeric
		}
		if f := e.fault; f != nil && f.reason != "" {
			meta := map[string]string{"row": strconv.Itoa(f.row)}
			if f.column != "" {
				meta["column"] = f.column
			}
			body["details"] = []any{map[string]any{
				"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": f.reason,
				"domain": "zerobus.databricks.com", "metadata": meta,
			}}
		}
		a = jsonAnswer(e.status, body)
		if e.numeric != 0 {
			a.header.Set("X-Databricks-Reason-Phrase", e.message)
		}
		if e.status == http.StatusUnauthorized {
			a.header.Set("WWW-Authenticate", `Bearer realm="emulator"`)
		}
	}
	a.code = e.code
	return a
}

// usualCode is the error code that goes with a status where none is given.
func usualCode(endpoint string, status int) string {
	if endpoint == EndpointToken {
		switch {
		case status == http.StatusUnauthorized:
			return "invalid_client"
		case status >= 500:
			return "temporarily_unavailable"
		}
		return "invalid_request"
	}
	switch status {
	case http.StatusBadRequest:
		return "INVALID_PARAMETER_VALUE"
	case http.StatusUnauthorized:
		return "UNAUTHENTICATED"
	case http.StatusForbidden:
		return "PERMISSION_DENIED"
	case http.StatusNotFound:
		return "NOT_FOUND"
	case http.StatusRequestEntityTooLarge:
		return "REQUEST_TOO_LARGE"
	case http.StatusTooManyRequests:
		return "REQUEST_LIMIT_EXCEEDED"
	case http.StatusNotImplemented:
		return "NOT_IMPLEMENTED"
	case http.StatusServiceUnavailable:
		return "TEMPORARILY_UNAVAILABLE"
	case http.StatusGatewayTimeout:
		return "DEADLINE_EXCEEDED"
	}
	if status >= 500 {
		return "INTERNAL_ERROR"
	}
	return "BAD_REQUEST"
}
