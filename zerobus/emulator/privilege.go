package emulator

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// The privileges the emulator knows.
const (
	PrivilegeUseCatalog = "USE CATALOG" // on a catalog
	PrivilegeUseSchema  = "USE SCHEMA"  // on catalog.schema
	PrivilegeSelect     = "SELECT"      // on catalog.schema.table
	PrivilegeModify     = "MODIFY"      // on catalog.schema.table
)

var privilegeNames = []string{PrivilegeUseCatalog, PrivilegeUseSchema, PrivilegeSelect, PrivilegeModify}

// privileges holds what the client may not do. It starts with every grant in
// place, as a workspace set up by the integration's page has them.
type privileges struct {
	mu      sync.Mutex
	revoked map[string]bool // "MODIFY on datafly.events.stream"
}

func privilegeKey(privilege, on string) (string, error) {
	privilege, on = strings.ToUpper(strings.TrimSpace(privilege)), strings.ToLower(strings.TrimSpace(on))
	parts := map[string]int{PrivilegeUseCatalog: 1, PrivilegeUseSchema: 2, PrivilegeSelect: 3, PrivilegeModify: 3}[privilege]
	if parts == 0 {
		return "", oneOf("privilege", privilege, privilegeNames)
	}
	if on == "" || strings.Count(on, ".") != parts-1 {
		return "", fmt.Errorf("privilege %s on %q: want a name of %d part(s)", privilege, on, parts)
	}
	return privilege + " on " + on, nil
}

// Grant gives back a privilege taken away by Revoke: USE CATALOG on a catalog,
// USE SCHEMA on catalog.schema, SELECT or MODIFY on a table.
func (e *Emulator) Grant(privilege, on string) error {
	key, err := privilegeKey(privilege, on)
	if err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	e.privileges.mu.Lock()
	defer e.privileges.mu.Unlock()
	delete(e.privileges.revoked, key)
	return nil
}

// Revoke takes a privilege away: requests that need it answer 403.
func (e *Emulator) Revoke(privilege, on string) error {
	key, err := privilegeKey(privilege, on)
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	e.privileges.mu.Lock()
	defer e.privileges.mu.Unlock()
	e.privileges.revoked[key] = true
	return nil
}

// Revoked lists what has been taken away, as "MODIFY on datafly.events.stream".
func (e *Emulator) Revoked() []string {
	e.privileges.mu.Lock()
	defer e.privileges.mu.Unlock()
	out := make([]string, 0, len(e.privileges.revoked))
	for key := range e.privileges.revoked {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}

// permit checks the path down to a table and one privilege on it.
func (e *Emulator) permit(table, privilege string) *apiError {
	catalog, rest, _ := strings.Cut(table, ".")
	schema, _, _ := strings.Cut(rest, ".")
	need := []struct{ privilege, kind, on string }{
		{PrivilegeUseCatalog, "catalog", catalog},
		{PrivilegeUseSchema, "schema", catalog + "." + schema},
		{privilege, "table", table},
	}
	e.privileges.mu.Lock()
	defer e.privileges.mu.Unlock()
	if len(e.privileges.revoked) == 0 {
		return nil
	}
	for _, n := range need {
		if e.privileges.revoked[n.privilege+" on "+n.on] {
			return &apiError{
				status: http.StatusForbidden, code: "PERMISSION_DENIED",
				message: fmt.Sprintf("The principal is missing the %s privilege on %s %s.", n.privilege, n.kind, n.on),
			}
		}
	}
	return nil
}
