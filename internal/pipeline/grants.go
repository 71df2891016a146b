package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/zerobus"
)

// HTTP statuses of the workspace and the endpoint.
const (
	forbidden = 403
	notFound  = 404
)

// grants are what Unity Catalog shows of the service principal's rights on the table, its schema
// and its catalog. Each is looked up once. It is for one goroutine.
type grants struct {
	p      *Parts
	seen   map[databricks.Kind]*securable
	absent []databricks.Kind // found to be so
}

// securable is a table, or what it is in.
type securable struct {
	databricks.Securable
	err     error // why the rest of it is not known
	held    []databricks.Privilege
	heldErr error // why held is not known
}

func (g *grants) principal() string { return g.p.settings.Zerobus.ClientID }

func (g *grants) name(on databricks.Kind) string {
	return string(on) + " " + g.p.Client.Table().Of(on)
}

func (g *grants) statement(on databricks.Kind, privileges ...string) string {
	return g.p.Client.Table().Grant(on, g.principal(), privileges...)
}

func (g *grants) look(ctx context.Context, kind databricks.Kind) *securable {
	s := g.seen[kind]
	if s == nil {
		s = &securable{}
		workspace, name := g.p.Client.Workspace(), g.p.Client.Table().Of(kind)
		s.Securable, s.err = workspace.Securable(ctx, kind, name)
		s.held, s.heldErr = workspace.Effective(ctx, kind, name, g.principal())
		if ctx.Err() == nil { // else what was not answered in time is asked again
			g.seen[kind] = s
		}
	}
	return s
}

// findAbsent returns the error that the catalog, the schema or the table does not exist, the
// outermost of them; nil if they do, or Unity Catalog may hide them.
func (g *grants) findAbsent(ctx context.Context) error {
	unknown := func(err error) bool {
		answer, ok := errors.AsType[*databricks.Error](err)
		return ok && answer.Status == notFound && answer.Code != "ENDPOINT_NOT_FOUND"
	}
	for n, need := range zerobus.Needed {
		if s := g.look(ctx, need.On); unknown(s.err) && unknown(s.heldErr) {
			g.absent = nil
			for _, within := range zerobus.Needed[n:] {
				g.absent = append(g.absent, within.On)
			}
			return fmt.Errorf("%s does not exist, or service principal %s may not see it; %s", g.name(need.On), g.principal(), g.creation(need.On))
		}
	}
	return nil
}

// exists reports whether a securable was not found to be absent.
func (g *grants) exists(on databricks.Kind) bool { return !slices.Contains(g.absent, on) }

func (g *grants) creation(kind databricks.Kind) string {
	return fmt.Sprintf("correct zerobus.%s, or create the %s: bridge ddl prints the statements", kind, kind)
}

// has reports how a privilege is granted on the securable itself; else, in from, how the
// principal has it otherwise. Both are empty if it does not.
func (g *grants) has(s *securable, privilege string) (how, from string) {
	if s.Owner != "" && strings.EqualFold(s.Owner, g.principal()) {
		from = "by owning it"
	}
	for _, p := range s.held {
		switch {
		case p.Name != privilege && p.Name != databricks.AllPrivileges:
		case p.InheritedFrom != "":
			from = "by a grant on " + p.InheritedFrom
		case p.Name != privilege:
			return "granted by " + p.Name, ""
		default:
			return "granted", ""
		}
	}
	return "", from
}

// check is the step of one privilege. proven is true if the service has accepted the principal.
func (g *grants) check(ctx context.Context, on databricks.Kind, privilege string, proven bool) (string, error) {
	s, name, run := g.look(ctx, on), g.name(on), "; run: "+g.statement(on, privilege)
	if s.heldErr != nil {
		return "", Warning("the grants on " + name + " cannot be read, so the steps token and ingest alone show whether they suffice: " + s.heldErr.Error() +
			strings.Replace(run, "run:", "run, if either fails:", 1))
	}
	how, from := g.has(s, privilege)
	lacks := fmt.Sprintf("service principal %s lacks %s on %s", g.principal(), privilege, name)
	switch {
	case how != "":
		return name + ", " + how, nil
	case from != "":
		return "", Warning(fmt.Sprintf("service principal %s has %s on %s only %s, and Zerobus may ask for a grant on the %s itself%s", g.principal(), privilege, name, from, on, run))
	case proven: // such as by way of a group
		return "", Warning(lacks + ", and yet the service takes its rows" + run)
	}
	return "", errors.New(lacks + run)
}

// explain gives an error about missing rights the remedy that Unity Catalog shows: exactly what
// is missing. Other errors, and those for which it shows nothing, it returns as they are.
func (g *grants) explain(ctx context.Context, err error) error {
	answer, ok := errors.AsType[*zerobus.Error](err)
	if !ok {
		return err
	}
	_, unreadable := errors.AsType[*zerobus.ColumnsUnreadable](err)
	rows := answer.Op == "ingest" || answer.Op == "insert"
	switch {
	case unreadable, Unauthorized(err), rows && answer.Status == forbidden:
	case rows && answer.Status == notFound && answer.Code != "ENDPOINT_NOT_FOUND":
	default:
		return err
	}
	exact := *answer
	if exact.Remedy = g.remedy(ctx); exact.Remedy == "" {
		return err
	}
	if unreadable {
		return &zerobus.ColumnsUnreadable{Err: &exact}
	}
	return &exact
}

// Unauthorized reports whether the workspace refused a token since the service principal lacks
// rights on the table.
func Unauthorized(err error) bool {
	answer, ok := errors.AsType[*zerobus.Error](err)
	return ok && answer.Code == "invalid_authorization_details"
}

// remedy returns the statements that grant what is missing; what it has otherwise counts
// where nothing else is missing. It is empty if Unity Catalog does not show what is missing.
func (g *grants) remedy(ctx context.Context) string {
	if g.findAbsent(ctx) != nil {
		return g.creation(g.absent[0])
	}
	var missing, inherited []string
	for _, need := range zerobus.Needed {
		s := g.look(ctx, need.On)
		if s.heldErr != nil {
			return ""
		}
		lacking := slices.DeleteFunc(slices.Clone(need.Privileges), func(p string) bool { how, from := g.has(s, p); return how != "" || from != "" })
		if len(lacking) > 0 {
			missing = append(missing, g.statement(need.On, lacking...))
		}
		indirect := slices.DeleteFunc(slices.Clone(need.Privileges), func(p string) bool { _, from := g.has(s, p); return from == "" })
		if len(indirect) > 0 {
			inherited = append(inherited, g.statement(need.On, indirect...))
		}
	}
	if len(missing) == 0 {
		missing = inherited
	}
	if len(missing) == 0 {
		return ""
	}
	return "run: " + strings.Join(missing, " ")
}
