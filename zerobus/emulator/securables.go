package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// The privileges the emulator knows, as SQL spells them.
const (
	PrivilegeCreateCatalog = "CREATE CATALOG" // on the metastore
	PrivilegeUseCatalog    = "USE CATALOG"    // on a catalog
	PrivilegeCreateSchema  = "CREATE SCHEMA"  // on a catalog
	PrivilegeUseSchema     = "USE SCHEMA"     // on a schema, or on a catalog for its schemas
	PrivilegeCreateTable   = "CREATE TABLE"   // likewise; also for views
	PrivilegeSelect        = "SELECT"         // on a table, or on what contains it
	PrivilegeModify        = "MODIFY"         // likewise
	PrivilegeApplyTag      = "APPLY TAG"      // likewise
	PrivilegeManage        = "MANAGE"         // likewise; to grant
	PrivilegeAll           = "ALL PRIVILEGES" // all of them but MANAGE
)

// kinds of securables, by the parts of their names.
const (
	kindMetastore = iota
	kindCatalog
	kindSchema
	kindTable // also of views
)

var kindNames = []string{"metastore", "catalog", "schema", "table"}

// privilegeKinds has the kinds of securables that each privilege can be granted on,
// outermost first.
var privilegeKinds = map[string][]int{
	PrivilegeCreateCatalog: {kindMetastore}, PrivilegeUseCatalog: {kindCatalog}, PrivilegeCreateSchema: {kindCatalog},
	PrivilegeUseSchema: {kindCatalog, kindSchema}, PrivilegeCreateTable: {kindCatalog, kindSchema},
	PrivilegeSelect: {kindCatalog, kindSchema, kindTable}, PrivilegeModify: {kindCatalog, kindSchema, kindTable},
	PrivilegeApplyTag: {kindCatalog, kindSchema, kindTable}, PrivilegeManage: {kindCatalog, kindSchema, kindTable},
	PrivilegeAll: {kindCatalog, kindSchema, kindTable},
}

// defaults are what the service principal has on securables of each kind that
// Config.DDL and the admin API make; creates are part of them unless Config.NoCreate.
var (
	defaults = [][]string{{}, {PrivilegeUseCatalog}, {PrivilegeUseSchema}, {PrivilegeSelect, PrivilegeModify}}
	creates  = [][]string{{PrivilegeCreateCatalog}, {PrivilegeCreateSchema}, {PrivilegeCreateTable}, {}}
)

// securable is an object of Unity Catalog. Its catalog guards it.
type securable struct {
	owner  string
	seeded bool                       // made by Config.DDL or the admin API
	grants map[string]map[string]bool // principal -> privileges
}

// kindOf is the kind of the securable with a full name; "" is the metastore.
func kindOf(name string) int {
	if name == "" {
		return kindMetastore
	}
	return strings.Count(name, ".") + 1
}

// parent is the full name of what contains a securable other than the metastore.
func parent(name string) string { return name[:max(strings.LastIndexByte(name, '.'), 0)] }

// titled names a securable as the service's messages do.
func titled(name string) string {
	kind := kindNames[kindOf(name)]
	return strings.ToUpper(kind[:1]) + kind[1:] + " '" + cmp.Or(name, metastoreName) + "'"
}

// add makes a securable and, seeded, what contains it. c.mu is held.
func (c *catalog) add(name, owner string, seeded bool) {
	if name != "" && seeded && c.securables[parent(name)] == nil {
		c.add(parent(name), owner, true)
	}
	s := &securable{owner: owner, seeded: seeded, grants: map[string]map[string]bool{}}
	c.securables[name] = s
	if seeded {
		s.grant(c.cfg.ClientID, c.defaults(name)...)
	}
}

// Securables lists the full names of all catalogs, schemas, tables and views, sorted.
func (c *catalog) Securables() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Keys(c.securables))[1:] // the metastore is ""
}

// Drop removes a catalog, a schema, a table or a view, and what it contains.
func (c *catalog) Drop(name string) error {
	name = strings.ToLower(name)
	c.mu.Lock()
	if name == "" || c.securables[name] == nil {
		c.mu.Unlock()
		return fmt.Errorf("drop %q: it does not exist; list what does with Securables", name)
	}
	var dropped []*Table
	for full := range c.securables {
		if full == name || strings.HasPrefix(full, name+".") {
			if t := c.tables[full]; t != nil {
				dropped = append(dropped, t)
			}
			delete(c.tables, full)
			delete(c.securables, full)
		}
	}
	c.mu.Unlock()
	var err error
	for _, t := range dropped {
		err = errors.Join(err, t.clear(true))
	}
	return err
}

// defaults are the privileges of the service principal on a seeded securable.
func (c *catalog) defaults(name string) []string {
	if c.cfg.NoCreate {
		return defaults[kindOf(name)]
	}
	return slices.Concat(defaults[kindOf(name)], creates[kindOf(name)])
}

func (s *securable) grant(principal string, privileges ...string) {
	if s.grants[principal] == nil {
		s.grants[principal] = map[string]bool{}
	}
	for _, p := range privileges {
		s.grants[principal][p] = true
	}
}

func (s *securable) revoke(principal string, privileges ...string) {
	for _, p := range privileges {
		delete(s.grants[principal], p)
	}
}

// has reports whether a privilege is granted on the securable itself.
func (s *securable) has(principal, privilege string) bool {
	granted := s.grants[principal]
	return granted[privilege] || granted[PrivilegeAll] && privilege != PrivilegeManage
}

// granted reports whether a securable exists and the privilege is granted on it,
// not on what contains it, as the Zerobus endpoint asks.
func (c *catalog) granted(principal, privilege, name string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.securables[name]
	return s != nil && s.has(principal, privilege)
}

// may reports whether a principal may use a privilege on a securable: as its owner,
// as metastore admin, or by a grant on it or on what contains it.
func (c *catalog) may(principal, privilege, name string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.securables[name]
	if principal == AdminPrincipal || s != nil && s.owner == principal {
		return true
	}
	for ; s != nil; name, s = parent(name), c.securables[parent(name)] {
		if slices.Contains(privilegeKinds[privilege], kindOf(name)) && s.has(principal, privilege) {
			return true
		}
		if name == "" {
			break
		}
	}
	return false
}

// manages reports whether a principal may grant on a securable.
func (c *catalog) manages(principal, name string) bool {
	if c.may(principal, PrivilegeManage, name) {
		return true
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for ; name != ""; name = parent(name) {
		if s := c.securables[name]; s != nil && s.owner == principal {
			return true
		}
	}
	return false
}

// lacking returns the first privilege that is missing to use another on a securable:
// USE CATALOG and USE SCHEMA of what contains it come first. on is where it is missing;
// privilege is "" if none is.
func lacking(has func(principal, privilege, name string) bool, principal, privilege, name string) (missing, on string) {
	if above := parent(name); kindOf(name) > kindCatalog {
		use := []string{kindCatalog: PrivilegeUseCatalog, kindSchema: PrivilegeUseSchema}[kindOf(above)]
		if missing, on = lacking(has, principal, use, above); missing != "" {
			return missing, on
		}
	}
	if has(principal, privilege, name) {
		return "", ""
	}
	return privilege, name
}

// allowed refuses a principal that may not use a privilege on a securable.
func (e *Emulator) allowed(principal, privilege, name string) *apiError {
	if missing, on := lacking(e.may, principal, privilege, name); missing != "" {
		return refusal(http.StatusForbidden, "User does not have "+missing+" on "+titled(on)+".")
	}
	return nil
}

// permit checks the service principal's explicit grants on a table and on what
// contains it.
func (e *Emulator) permit(principal, table, privilege string) *apiError {
	if missing, on := lacking(e.granted, principal, privilege, table); missing != "" {
		return refusal(http.StatusForbidden, fmt.Sprintf("The principal is missing the %s privilege on %s %s.", missing, kindNames[kindOf(on)], on))
	}
	return nil
}

// Grant grants the service principal a privilege: CREATE CATALOG on "" (the metastore),
// USE CATALOG on a catalog, USE SCHEMA on catalog.schema, SELECT or MODIFY on a table,
// and so on.
func (e *Emulator) Grant(privilege, on string) error {
	return e.setGrant(privilege, on, (*securable).grant)
}

// Revoke takes a privilege of the service principal away: requests that need it answer 403.
func (e *Emulator) Revoke(privilege, on string) error {
	return e.setGrant(privilege, on, (*securable).revoke)
}

func (e *Emulator) setGrant(privilege, on string, set func(*securable, string, ...string)) error {
	on = strings.ToLower(strings.TrimSpace(on))
	e.catalog.mu.Lock()
	defer e.catalog.mu.Unlock()
	name, err := applicable(privilege, on)
	if err != nil {
		return err
	}
	s := e.securables[on]
	if s == nil {
		return fmt.Errorf("privilege %s on %q: there is no such %s; create it first", name, on, kindNames[kindOf(on)])
	}
	set(s, e.cfg.ClientID, name)
	return nil
}

// applicable returns the name of a privilege, which may be spelt with underscores, if it
// can be granted on the securable.
func applicable(privilege, on string) (string, error) {
	name := strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(privilege), "_", " "))
	if err := oneOf("privilege", name, slices.Sorted(maps.Keys(privilegeKinds))...); err != nil {
		return "", err
	}
	if kind := kindOf(on); kind > kindTable || !slices.Contains(privilegeKinds[name], kind) {
		return "", fmt.Errorf("privilege %s is not applicable to %q", name, on)
	}
	return name, nil
}

// Revoked lists what the service principal lacks of its defaults, as "MODIFY on
// datafly.events.stream".
func (e *Emulator) Revoked() []string {
	e.catalog.mu.RLock()
	defer e.catalog.mu.RUnlock()
	out := []string{}
	for name, s := range e.securables {
		for _, p := range e.defaults(name) {
			if s.seeded && !s.has(e.cfg.ClientID, p) {
				out = append(out, p+" on "+cmp.Or(name, kindNames[kindMetastore]))
			}
		}
	}
	slices.Sort(out)
	return out
}

// regrant gives the service principal its defaults again.
func (c *catalog) regrant() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, s := range c.securables {
		if s.seeded {
			s.grant(c.cfg.ClientID, c.defaults(name)...)
		}
	}
}

// describe serves GET /api/2.1/unity-catalog/catalogs/{name} and schemas/{name}.
func (e *Emulator) describe(kind int) handler {
	return func(c *call) (any, *apiError) {
		if err := e.authorize(c); err != nil {
			return nil, err
		}
		name, err := e.resolve(kind, c.table)
		if err != nil {
			return nil, err
		}
		use := []string{kindCatalog: PrivilegeUseCatalog, kindSchema: PrivilegeUseSchema}[kind]
		if err := e.allowed(c.principal, use, name); err != nil {
			return nil, err
		}
		catalogName, last, _ := strings.Cut(name, ".")
		document := map[string]any{
			"name": cmp.Or(last, name), "full_name": name, "owner": e.owner(name), "metastore_id": metastoreID,
			"securable_type": strings.ToUpper(kindNames[kind]),
		}
		if kind == kindSchema {
			document["catalog_name"] = catalogName
		} else {
			document["catalog_type"] = "MANAGED_CATALOG"
		}
		return document, nil
	}
}

// resolve returns the full name of a securable that exists.
func (e *Emulator) resolve(kind int, name string) (string, *apiError) {
	full := strings.ToLower(name)
	if kind == kindMetastore {
		full = ""
	}
	e.catalog.mu.RLock()
	defer e.catalog.mu.RUnlock()
	if e.securables[full] == nil || kindOf(full) != kind || kind == kindMetastore && name != metastoreID {
		return "", doesNotExist(kind, name)
	}
	return full, nil
}

func doesNotExist(kind int, name string) *apiError {
	title := kindNames[kind]
	return &apiError{
		status: http.StatusNotFound, code: strings.ToUpper(title) + "_DOES_NOT_EXIST",
		message: strings.ToUpper(title[:1]) + title[1:] + " '" + printable(name) + "' does not exist.",
	}
}

func (c *catalog) owner(name string) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.securables[name]; s != nil {
		return s.owner
	}
	return ""
}

// assignmentOf is a principal's privileges as the permissions API lists them.
type assignmentOf struct {
	Principal  string `json:"principal"`
	Privileges []any  `json:"privileges"`
}

// inherited is a privilege as the effective permissions list it.
type inherited struct {
	Privilege string `json:"privilege"`
	FromType  string `json:"inherited_from_type,omitzero"`
	FromName  string `json:"inherited_from_name,omitzero"`
}

// permissions serves GET /api/2.1/unity-catalog/permissions/{type}/{name} and, with
// effective true, effective-permissions, which include what is inherited. A principal
// that does not manage the securable may read its own.
func (e *Emulator) permissions(effective bool) handler {
	return func(c *call) (any, *apiError) {
		name, err := e.securableOf(c)
		if err != nil {
			return nil, err
		}
		principal := c.query.Get("principal")
		if !e.manages(c.principal, name) {
			if principal != "" && principal != c.principal {
				return nil, refusal(http.StatusForbidden, "User does not have MANAGE on "+titled(name)+".")
			}
			principal = c.principal
		}
		return e.listGrants(name, effective, func(p string) bool { return principal == "" || p == principal }), nil
	}
}

// securableOf returns the securable that a call to the permissions API names.
func (e *Emulator) securableOf(c *call) (string, *apiError) {
	if err := e.authorize(c); err != nil {
		return "", err
	}
	kind := slices.Index(kindNames, strings.ToLower(c.kind))
	if kind < 0 {
		return "", refusal(http.StatusBadRequest, "Securable type '"+printable(c.kind)+"' is not one of "+strings.Join(kindNames, ", "))
	}
	return e.resolve(kind, c.table)
}

func (e *Emulator) listGrants(name string, effective bool, want func(principal string) bool) any {
	e.catalog.mu.RLock()
	defer e.catalog.mu.RUnlock()
	lists := map[string][]any{}
	for on := name; e.securables[on] != nil; on = parent(on) {
		for principal, granted := range e.securables[on].grants {
			for _, p := range slices.Sorted(maps.Keys(granted)) {
				p = strings.ReplaceAll(p, " ", "_")
				switch {
				case !want(principal):
				case !effective:
					lists[principal] = append(lists[principal], p)
				case on == name:
					lists[principal] = append(lists[principal], inherited{Privilege: p})
				default:
					lists[principal] = append(lists[principal], inherited{p, strings.ToUpper(kindNames[kindOf(on)]), on})
				}
			}
		}
		if !effective || kindOf(on) <= kindCatalog { // grants on the metastore are not inherited
			break
		}
	}
	all := []assignmentOf{}
	for _, principal := range slices.Sorted(maps.Keys(lists)) {
		all = append(all, assignmentOf{principal, lists[principal]})
	}
	return map[string]any{"privilege_assignments": all}
}

// changePermissions serves PATCH /api/2.1/unity-catalog/permissions/{type}/{name}.
func (e *Emulator) changePermissions(c *call) (any, *apiError) {
	name, err := e.securableOf(c)
	if err != nil {
		return nil, err
	}
	var in struct {
		Changes []grantChange `json:"changes"`
	}
	if err := json.Unmarshal(c.body, &in, json.RejectUnknownMembers(true)); err != nil {
		return nil, malformed("the body is not {\"changes\":[{\"principal\":…,\"add\":[…],\"remove\":[…]}]}")
	}
	if err := e.change(c.principal, name, in.Changes...); err != nil {
		return nil, err
	}
	return e.listGrants(name, false, func(p string) bool {
		return slices.ContainsFunc(in.Changes, func(g grantChange) bool { return g.Principal == p })
	}), nil
}

// grantChange is a change of one principal's privileges.
type grantChange struct {
	Principal string   `json:"principal"`
	Add       []string `json:"add"`
	Remove    []string `json:"remove"`
}

// change applies changes of grants: all of them or, on error, none.
func (e *Emulator) change(by, name string, changes ...grantChange) *apiError {
	if !e.manages(by, name) {
		return refusal(http.StatusForbidden, "User does not have MANAGE on "+titled(name)+".")
	}
	for _, g := range changes {
		if !slices.Contains([]string{e.cfg.ClientID, AdminPrincipal}, g.Principal) {
			return &apiError{status: http.StatusNotFound, code: "PRINCIPAL_DOES_NOT_EXIST", message: "Could not find principal with name " + printable(g.Principal) + "."}
		}
		for _, list := range [][]string{g.Add, g.Remove} {
			for i, p := range list {
				known, err := applicable(p, name)
				if err != nil {
					return refusal(http.StatusBadRequest, "Privilege "+printable(p)+" is not applicable to "+titled(name)+".")
				}
				list[i] = known
			}
		}
	}
	e.catalog.mu.Lock()
	defer e.catalog.mu.Unlock()
	s := e.securables[name]
	if s == nil {
		return doesNotExist(kindOf(name), name)
	}
	for _, g := range changes {
		s.grant(g.Principal, g.Add...)
		s.revoke(g.Principal, g.Remove...)
	}
	return nil
}
