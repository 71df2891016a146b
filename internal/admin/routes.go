package admin

import (
	_ "embed"
	"encoding/json"

	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/pipeline"
)

// route is one call of the API. The router, the roles and the OpenAPI document come from
// it.
type route struct {
	method, pattern string // the pattern follows Prefix
	id, summary     string // of the operation
	role            string // the least that may call it
	params          []param
	match           bool // If-Match counts
	body            any  // a value of the type of the body; nil: none
	optional        bool // the body may be missing
	answer          any  // a value of the type of the answer; nil: a stream only
	stream          bool // Accept: text/event-stream is answered with events
	created         bool // the status is 201, or 200 of a dry run
	operation       bool // errors of unknown type come from Kafka or the table
	conflict        bool // 409 is possible
	do              func(*call) (any, error)
}

var (
	dryRun  = param{"dry_run", "Returns what the call would do, and changes nothing.", "boolean", "false"}
	dryRun1 = param{"dry_run", "Returns what the call would do, and changes nothing, unless it is false.", "boolean", "true"}
	reason  = param{"reason", "Why, for the audit log.", "text", ""}
	limit   = param{"limit", "The largest number of items on the page.", "integer", "50"}
	cursor  = param{"cursor", "next_cursor of the page before.", "cursor", ""}
)

// filters select dead letters.
var filters = []param{
	{"codes", "Codes, separated by commas.", "list", ""}, {"column", "The column at fault.", "text", ""},
	{"from", "The earliest time of the failure.", "time", ""}, {"to", "The time of the failure before which they are.", "time", ""},
	{"partitions", "Partitions of the source topic, separated by commas.", "list", ""},
}

// routes are the calls, in the order of the document.
var routes = []*route{
	{method: "GET", pattern: "/session", id: "getSession", summary: "Who sends the request", role: access.Viewer, answer: session{}, do: (*call).session},
	{method: "GET", pattern: "/openapi.json", id: "getDocument", summary: "This document", role: access.Viewer, answer: map[string]any{},
		do: func(*call) (any, error) { return json.RawMessage(document), nil }},

	{method: "GET", pattern: "/integration-catalog", id: "listCatalog", summary: "What can be installed", role: access.Viewer, params: []param{limit, cursor},
		answer: page[catalog.Vendor]{}, do: (*call).catalog},
	{method: "GET", pattern: "/integration-catalog/{key}", id: "getCatalogEntry", summary: "The fields and variants of a vendor", role: access.Viewer, answer: catalog.Vendor{}, do: (*call).vendor},
	{method: "POST", pattern: "/integration-catalog/{key}/install", id: "install", summary: "Install an integration", role: access.Editor, params: []param{dryRun, reason},
		body: manage.Request{}, answer: manage.Result{}, created: true, conflict: true, do: (*call).install},
	{method: "POST", pattern: "/integration-catalog/{key}/check", id: "checkInstall", summary: "Try what an integration would depend on", role: access.Editor,
		body: manage.Request{}, answer: checked{}, stream: true, do: (*call).checkInstall},
	{method: "POST", pattern: "/integration-catalog/{key}/prepare", id: "prepare", summary: "Create the table and its grants with a SQL warehouse", role: access.Editor, params: []param{dryRun, reason},
		body: manage.PrepareRequest{}, answer: manage.Prepared{}, stream: true, operation: true, do: (*call).prepare},

	{method: "GET", pattern: "/integrations", id: "listIntegrations", summary: "All integrations, in the order of their slugs", role: access.Viewer, params: []param{limit, cursor},
		answer: page[manage.Integration]{}, do: (*call).list},
	{method: "GET", pattern: "/integrations/{id}", id: "getIntegration", summary: "One integration, by id or slug", role: access.Viewer, answer: manage.Integration{}, do: (*call).get},
	{method: "PATCH", pattern: "/integrations/{id}", id: "updateIntegration", summary: "Change an integration", role: access.Editor, params: []param{dryRun, reason}, match: true,
		body: manage.Patch{}, answer: manage.Result{}, conflict: true, do: (*call).patch},
	{method: "DELETE", pattern: "/integrations/{id}", id: "removeIntegration", summary: "Remove an integration", role: access.Admin, params: []param{dryRun, reason}, match: true,
		answer: manage.Result{}, conflict: true, do: (*call).remove},
	{method: "POST", pattern: "/integrations/{id}/enable", id: "enable", summary: "Start an integration", role: access.Editor, params: []param{dryRun, reason}, match: true,
		answer: manage.Result{}, conflict: true, do: func(c *call) (any, error) { return c.setEnabled(true) }},
	{method: "POST", pattern: "/integrations/{id}/disable", id: "disable", summary: "Stop an integration", role: access.Editor, params: []param{dryRun, reason}, match: true,
		answer: manage.Result{}, conflict: true, do: func(c *call) (any, error) { return c.setEnabled(false) }},
	{method: "POST", pattern: "/integrations/{id}/check", id: "check", summary: "Try what an integration depends on, with changes or without", role: access.Editor,
		body: manage.Patch{}, optional: true, answer: checked{}, conflict: true, stream: true, do: (*call).check},
	{method: "POST", pattern: "/integrations/{id}/replay", id: "replay", summary: "Set the offsets of a disabled integration", role: access.Editor, params: []param{dryRun1},
		body: pipeline.ReplayRequest{}, answer: pipeline.ReplayReport{}, operation: true, do: (*call).replay},
	{method: "GET", pattern: "/integrations/{id}/dead-letters", id: "listDeadLetters", summary: "Unresolved dead letters by code and column", role: access.Viewer, params: filters,
		answer: pipeline.DeadLetterGroups{}, operation: true, do: (*call).deadLetters},
	{method: "POST", pattern: "/integrations/{id}/dead-letters/redrive", id: "redrive", summary: "Map dead letters again and write their rows", role: access.Editor, params: []param{dryRun1},
		body: pipeline.RedriveRequest{}, answer: pipeline.RedriveReport{}, operation: true, do: (*call).redrive},
	{method: "GET", pattern: "/integrations/{id}/recent-events", id: "listRecentEvents", summary: "The newest events of the source topics, to try a blueprint on", role: access.Editor, params: []param{limit},
		answer: page[pipeline.RecentEvent]{}, operation: true, do: (*call).recentEvents},
	{method: "GET", pattern: "/integrations/{id}/status", id: "getStatus", summary: "The state of an integration over all members", role: access.Viewer, answer: ops.GroupStatus{}, do: (*call).status},
	{method: "GET", pattern: "/integrations/{id}/events", id: "streamEvents", summary: "Events with their outcomes, as they are delivered", role: access.Viewer, stream: true, do: (*call).events},
	{method: "GET", pattern: "/integrations/{id}/revisions", id: "listRevisions", summary: "The changes of an integration, newest first", role: access.Viewer, params: []param{limit, cursor},
		answer: page[store.Entry]{}, do: (*call).revisions},
	{method: "GET", pattern: "/integrations/{id}/revisions/{n}/diff", id: "getDiff", summary: "What one revision changed", role: access.Viewer, answer: diff{}, do: (*call).diff},

	{method: "GET", pattern: "/audit-log", id: "listAudit", summary: "Who changed what, newest first", role: access.Viewer, params: []param{limit, cursor}, answer: page[store.Entry]{}, do: (*call).audit},
	{method: "GET", pattern: "/topics", id: "listTopics", summary: "The topics that an integration can read", role: access.Viewer, params: []param{limit, cursor},
		answer: page[pipeline.Topic]{}, operation: true, do: (*call).topics},
	{method: "POST", pattern: "/blueprint/validate", id: "validateBlueprint", summary: "Compile a blueprint", role: access.Editor,
		body: pipeline.BlueprintRequest{}, answer: pipeline.BlueprintReport{}, operation: true, do: (*call).validateBlueprint},
	{method: "POST", pattern: "/blueprint/try", id: "tryBlueprint", summary: "Map one event with a blueprint", role: access.Editor,
		body: pipeline.TryRequest{}, answer: pipeline.TryReport{}, operation: true, do: (*call).tryBlueprint},
}

// document is the OpenAPI document. TestDocument writes it with -update.
//
//go:embed openapi.json
var document []byte

// session is who sends a request.
type session struct {
	access.Identity
	Tokens bool `json:"tokens"` // requests need one
}

func (c *call) session() (any, error) {
	return session{Identity: c.who, Tokens: c.cfg.Access.Enabled()}, nil
}

// checked is the outcome of a check.
type checked struct {
	OK    bool                 `json:"ok"` // no step has failed
	Steps []pipeline.CheckStep `json:"steps"`
}

// diff is what one revision changed.
type diff struct {
	Revision int64                    `json:"revision"`
	Changes  map[string]store.Changed `json:"changes"` // by dotted field; secrets as fingerprints
}
