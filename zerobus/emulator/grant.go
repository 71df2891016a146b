package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// AuthMode is what the Zerobus endpoint asks of a token.
type AuthMode int

const (
	// AuthStrict takes tokens of the emulator's own token endpoint that were
	// asked for this endpoint and this table, and are not expired.
	AuthStrict AuthMode = iota
	// AuthPresence takes any bearer token.
	AuthPresence
	// AuthOff asks for none.
	AuthOff
)

var authModes = [...]string{"strict", "presence", "off"}

// String is the text that ParseAuthMode reads.
func (m AuthMode) String() string { return authModes[m] }

// ParseAuthMode reads strict, presence or off.
func ParseAuthMode(text string) (AuthMode, error) {
	i := slices.Index(authModes[:], text)
	if i < 0 {
		return 0, oneOf("auth mode", text, authModes[:])
	}
	return AuthMode(i), nil
}

const (
	badAudience       = "Invalid token audience"
	endpointTokenSize = 4000 // characters of a token for the Zerobus endpoint: as large as they were seen to be
)

// Resource is what a token request for the Zerobus endpoint must name.
func (e *Emulator) Resource() string {
	return "api://databricks/workspaces/" + e.cfg.WorkspaceID + "/zerobusDirectWriteApi"
}

// detail is one element of authorization_details (RFC 9396).
type detail struct {
	Type       string   `json:"type"`
	Privileges []string `json:"privileges"`
	ObjectType string   `json:"object_type"`
	Path       string   `json:"object_full_path"`
	Operations []string `json:"operations"`
}

// grantOf reads what a token request asks for beyond the workspace's APIs.
// Grants that are missing and objects that do not exist get the same answer.
func (e *Emulator) grantOf(form url.Values) (grant, *apiError) {
	resource, details := form.Get("resource"), form.Get("authorization_details")
	if resource == "" && details == "" {
		return grant{}, nil
	}
	bad := func(code, format string, args ...any) (grant, *apiError) {
		return grant{}, &apiError{status: http.StatusBadRequest, code: code, message: fmt.Sprintf(format, args...)}
	}
	if resource != e.Resource() {
		return bad("invalid_target", "resource is %q and must be %q", printable(resource), e.Resource())
	}
	var asked []detail
	if err := json.Unmarshal([]byte(details), &asked); err != nil || len(asked) == 0 {
		return bad("invalid_authorization_details", "authorization_details must be a JSON array of objects")
	}
	g := grant{Audience: resource}
	writable, readable := map[string]bool{}, map[string]bool{}
	for _, d := range asked {
		parts := map[string]int{"CATALOG": 1, "SCHEMA": 2, "TABLE": 3}[d.ObjectType]
		if d.Type != "unity_catalog_privileges" || parts == 0 || strings.Count(d.Path, ".") != parts-1 || len(d.Privileges) == 0 {
			return bad("invalid_authorization_details", "authorization_details holds an object that is no unity_catalog_privileges of a CATALOG, SCHEMA or TABLE")
		}
		path := strings.ToLower(d.Path)
		for _, p := range d.Privileges {
			if !e.holds(p, path) {
				return grant{}, &apiError{
					status: http.StatusUnauthorized, code: "invalid_authorization_details",
					message: "User is not authorized to the requested authorizations",
				}
			}
			if d.ObjectType == "TABLE" {
				writable[path] = writable[path] || p == PrivilegeModify
				readable[path] = readable[path] || p == PrivilegeSelect
			}
		}
	}
	for table := range writable {
		if writable[table] && readable[table] {
			g.Tables = append(g.Tables, table)
		}
	}
	return g, nil
}

// holds reports whether an object exists and the principal has a privilege on
// it.
func (e *Emulator) holds(privilege, path string) bool {
	key, err := privilegeKey(privilege, path)
	if err != nil {
		return false
	}
	exists := slices.ContainsFunc(e.Tables(), func(name string) bool {
		return name == path || strings.HasPrefix(name, path+".")
	})
	e.privileges.mu.Lock()
	defer e.privileges.mu.Unlock()
	return exists && !e.privileges.revoked[key]
}

// authorizeEndpoint judges the Authorization header of a call to the Zerobus
// endpoint that writes to table.
func (e *Emulator) authorizeEndpoint(authorization, table string) *apiError {
	if e.cfg.Auth == AuthOff {
		return nil
	}
	token := bearer(authorization)
	if token == "" {
		return unauthenticated("Missing bearer token")
	}
	if e.cfg.Auth == AuthPresence {
		return nil
	}
	g, ok := e.tokens.find(token)
	switch {
	case !ok:
		return unauthenticated("Invalid token")
	case g.Audience != e.Resource():
		return unauthenticated(badAudience)
	case !slices.Contains(g.Tables, strings.ToLower(table)):
		return missingPrivilege(PrivilegeModify, table)
	}
	return nil
}

func missingPrivilege(privilege, table string) *apiError {
	return &apiError{
		status: http.StatusForbidden, code: "PERMISSION_DENIED",
		message: numbered("Authorization token is missing "+privilege+" privilege for a table "+printable(table)+".", codePrivilege, 0),
	}
}

// permitEndpoint checks what a principal needs to write by the Zerobus
// endpoint, now: a grant can be taken back while a token lives. The table has to
// be of a kind that takes rows, too.
func (e *Emulator) permitEndpoint(t *Table) *apiError {
	for _, p := range []string{PrivilegeModify, PrivilegeSelect} {
		if err := e.permit(t.name, p); err != nil {
			return missingPrivilege(p, t.name)
		}
	}
	return t.takesRows()
}

func tableNotFound(table string) *apiError {
	return &apiError{status: http.StatusNotFound, code: "NOT_FOUND", message: `Table "` + printable(table) + `" cannot be found.`}
}
