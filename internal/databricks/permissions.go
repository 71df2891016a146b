package databricks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Kind is a kind of securable in Unity Catalog, as paths name it.
type Kind string

// The kinds between which grants are inherited, from the outermost on.
const (
	Catalog Kind = "catalog"
	Schema  Kind = "schema"
	Table   Kind = "table" // also of a view
)

// AllPrivileges implies every other privilege of a securable.
const AllPrivileges = "ALL PRIVILEGES"

// Privilege is one that a principal has on a securable.
type Privilege struct {
	Name string // as SQL spells it, such as USE CATALOG
	// InheritedFrom is the securable that it was granted on, such as "schema datafly.events";
	// empty: the securable itself.
	InheritedFrom string
}

// Securable is what Unity Catalog shows of a catalog, a schema or a table. Fields that the
// principal may not see are empty.
type Securable struct {
	Owner      string // a user's mail address, a group, or the application id of a service principal
	BrowseOnly bool   // the principal sees it by BROWSE alone

	// The rest is of tables.
	Type           string // such as MANAGED or VIEW
	Format         string // such as DELTA
	DefaultStorage bool   // Unity Catalog names it as a table in default storage
	Partitions     []string
	Properties     map[string]string
}

const (
	pagesMax       = 100                // of one answer
	defaultStorage = "TABLE_DB_STORAGE" // securable_kind of a table in default storage
)

// Effective returns the privileges of a principal (a user's mail address, a group, or the
// application id of a service principal) on a securable. Those that come by way of a group, by
// ownership or by an administrator's role are not among them. Errors are *Error: 401 and 403
// where they may not be read, 404 also where the securable may not be seen.
//
//	GET /api/2.1/unity-catalog/effective-permissions/{securable_type}/{full_name}
//
// https://docs.databricks.com/api/uc-grants/v1/get-effective-permissions
func (c *Client) Effective(ctx context.Context, kind Kind, fullName, principal string) ([]Privilege, error) {
	at := "/api/2.1/unity-catalog/effective-permissions/" + path(string(kind)) + "/" + path(fullName)
	query := url.Values{"principal": {principal}, "max_results": {"0"}} // 0: in pages of the workspace's size
	var all []Privilege
	for range pagesMax {
		var page effectivePage
		if _, err := c.get(ctx, at, query, &page); err != nil {
			return nil, err
		}
		all = append(all, page.of(principal)...)
		if page.Next == "" { // a page may be empty before the last one
			return all, nil
		}
		query.Set("page_token", page.Next)
	}
	return nil, &Error{Call: "GET " + at, Err: fmt.Errorf("the answer has over %d pages", pagesMax)}
}

// effectivePage is a page of effective permissions.
type effectivePage struct {
	Assignments []struct {
		Principal  string `json:"principal"`
		Privileges []struct {
			Name     string `json:"privilege"`
			FromType string `json:"inherited_from_type"`
			FromName string `json:"inherited_from_name"`
		} `json:"privileges"`
	} `json:"privilege_assignments"`
	Next string `json:"next_page_token"`
}

func (p *effectivePage) of(principal string) []Privilege {
	var list []Privilege
	for _, a := range p.Assignments {
		if !strings.EqualFold(a.Principal, principal) {
			continue
		}
		for _, held := range a.Privileges {
			// The API spells names with underscores, SQL with blanks.
			one := Privilege{Name: strings.ReplaceAll(strings.ToUpper(Clean(held.Name, 100)), "_", " ")}
			if held.FromName != "" || held.FromType != "" {
				one.InheritedFrom = strings.TrimSpace(strings.ToLower(Clean(held.FromType, 40)) + " " + Clean(held.FromName, 800))
			}
			list = append(list, one)
		}
	}
	return list
}

// Grant grants privileges, named as in SQL, on a securable to a principal. It needs no
// warehouse. The caller's principal must own the securable or one above it, or have MANAGE on
// it. A privilege that is granted already stays.
//
//	PATCH /api/2.1/unity-catalog/permissions/{securable_type}/{full_name}
//
// https://docs.databricks.com/api/uc-grants/v1/update-permissions
func (c *Client) Grant(ctx context.Context, kind Kind, fullName, principal string, privileges ...string) error {
	type change struct {
		Principal string   `json:"principal"`
		Add       []string `json:"add"`
	}
	add := make([]string, len(privileges))
	for i, name := range privileges {
		add[i] = strings.ReplaceAll(name, " ", "_")
	}
	in := map[string]any{"changes": []change{{principal, add}}}
	_, err := c.call(ctx, http.MethodPatch, "/api/2.1/unity-catalog/permissions/"+path(string(kind))+"/"+path(fullName), in, &struct{}{})
	return err
}

// Exists reports whether a securable exists and the principal may see it.
func (c *Client) Exists(ctx context.Context, kind Kind, fullName string) (bool, error) {
	_, err := c.Securable(ctx, kind, fullName)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}

// Securable returns what Unity Catalog shows of a securable. Errors are *Error: 404 where it
// does not exist or may not be seen, 403 where something above it may not be used.
//
//	GET /api/2.1/unity-catalog/{catalogs,schemas,tables}/{full_name}
//
// https://docs.databricks.com/api/uc-tables/v1/get-table
func (c *Client) Securable(ctx context.Context, kind Kind, fullName string) (Securable, error) {
	var doc securableDocument
	_, err := c.get(ctx, "/api/2.1/unity-catalog/"+path(string(kind))+"s/"+path(fullName), url.Values{"include_browse": {"true"}}, &doc)
	return doc.securable(), err
}

type securableDocument struct {
	Owner      string `json:"owner"`
	BrowseOnly bool   `json:"browse_only"`
	Type       string `json:"table_type"`
	Format     string `json:"data_source_format"`
	Kind       string `json:"securable_kind"`
	Manifest   struct {
		Kind string `json:"securable_kind"`
	} `json:"securable_kind_manifest"`
	Columns []struct {
		Name  string `json:"name"`
		Index *int   `json:"partition_index"`
	} `json:"columns"`
	Properties map[string]string `json:"properties"`
}

func (d *securableDocument) securable() Securable {
	s := Securable{Owner: Clean(d.Owner, 255), BrowseOnly: d.BrowseOnly, Type: strings.ToUpper(Clean(d.Type, 40)), Format: strings.ToUpper(Clean(d.Format, 40)),
		DefaultStorage: d.Kind == defaultStorage || d.Manifest.Kind == defaultStorage, Properties: d.Properties}
	for _, column := range d.Columns {
		if column.Index != nil {
			s.Partitions = append(s.Partitions, Clean(column.Name, 255))
		}
	}
	return s
}

// TableDocument returns what Unity Catalog shows of a table, as JSON. It is asked for once:
// callers repeat. Errors are *Error, as those of Securable, or those of Token.
//
//	GET /api/2.1/unity-catalog/tables/{full_name}
//
// https://docs.databricks.com/api/workspace/tables/get
func (c *Client) TableDocument(ctx context.Context, fullName string) (json.RawMessage, error) {
	var doc json.RawMessage
	_, err := c.call(ctx, http.MethodGet, "/api/2.1/unity-catalog/tables/"+path(fullName), nil, &doc)
	return doc, err
}

const tagPagesMax = 10 // of one column's tags

// HasColumnTag reports whether a column of a table has a tag of this key. It repeats no call.
// Errors are *Error, or those of Token.
//
//	GET /api/2.1/unity-catalog/entity-tag-assignments/columns/{catalog.schema.table.column}/tags
//
// https://docs.databricks.com/api/uc-entity-tag-assignments/v1/list-entity-tag-assignments
func (c *Client) HasColumnTag(ctx context.Context, table, column, key string) (bool, error) {
	at := "/api/2.1/unity-catalog/entity-tag-assignments/columns/" + path(table+"."+column) + "/tags"
	query := ""
	for range tagPagesMax {
		var page struct {
			Tags []struct {
				Key string `json:"tag_key"`
			} `json:"tag_assignments"`
			Next string `json:"next_page_token"`
		}
		if _, err := c.call(ctx, http.MethodGet, at+query, nil, &page); err != nil {
			return false, err
		}
		for _, tag := range page.Tags {
			if tag.Key == key {
				return true, nil
			}
		}
		if page.Next == "" {
			return false, nil
		}
		query = "?page_token=" + url.QueryEscape(page.Next)
	}
	return false, &Error{Call: "GET " + at, Err: fmt.Errorf("the answer has over %d pages", tagPagesMax)}
}
