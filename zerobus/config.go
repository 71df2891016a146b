package zerobus

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/setting"
)

// Defaults of a Config's fields beyond its Settings.
const (
	DefaultProbeEvery = 30 * time.Second
	DefaultUserAgent  = "datafly-bridge"
)

// defaultTokenPath is the token endpoint on a workspace.
const defaultTokenPath = "/oidc/v1/token"

// Transports, as Config.Transport names them.
const (
	TransportAuto      = "auto"      // the first of the others that is served; see Client.Decide
	TransportWorkspace = "workspace" // HTTP POST to the workspace itself
	TransportGRPC      = "grpc"      // streams to the Zerobus endpoint
	TransportREST      = "rest"      // HTTP POST to the Zerobus endpoint
)

// Forms of a row, as Config.RecordFormat and Encoding.Format name them.
const (
	FormatAuto     = "auto"     // protobuf where the table's columns are known, else json
	FormatProtobuf = "protobuf" // one protobuf message
	FormatJSON     = "json"     // one JSON object
)

// Config is what a Client needs. Settings at zero have their defaults, except that
// ColumnsRefresh 0 is never.
type Config struct {
	Settings
	// ReadCredential, if not nil, returns the client secret, or the token to exchange,
	// instead of the Settings. It is called for each token, and once a second while
	// writing is blocked, so one replaced in its file is used without a restart. It
	// must be safe for concurrent use.
	ReadCredential func() (string, error)
	// Connections are shared with other clients. Nil: the client has its own.
	Connections *Connections
	// ProbeEvery is the time between attempts while a configuration fault blocks
	// writing. Lower values notice the fix sooner. Default 30s.
	ProbeEvery time.Duration
	// UserAgent is sent with every request. Default datafly-bridge.
	UserAgent string
}

// settings is a Config with defaults applied and addresses parsed.
type settings struct {
	Config
	base   *url.URL // of the workspace: scheme and host only
	table  TableName
	token  string    // absolute URL
	ingest string    // absolute URL
	native *endpoint // of Zerobus itself; nil under workspace, and until it is known
}

// endpoint is the Zerobus endpoint and the workspace that its tokens are bound to.
type endpoint struct {
	base        *url.URL // scheme and host, the port only if given
	target      string   // host:port
	clear       bool     // no TLS: a loopback host
	workspaceID string
}

var plainID = regexp.MustCompile(`^[0-9A-Za-z-]{1,63}$`)

// configured is a configuration with the Settings only, for their rules.
type configured struct {
	Zerobus Settings `yaml:"zerobus"`
}

var schema = setting.SchemaOf[configured]()

// parse applies defaults and reports every problem at once.
func (c Config) parse() (settings, error) {
	all := configured{c.Settings}
	var skip []string
	if c.ReadCredential != nil {
		skip = []string{"zerobus.client_secret"}
	}
	problems := schema.Complete(&all, skip...)
	s := settings{Config: c}
	s.Settings = all.Zerobus
	s.table = TableName{s.Catalog, s.Schema, s.Table}
	if s.ReadCredential == nil {
		s.ReadCredential = s.CredentialSource().Read
	}
	s.Connections = cmp.Or(c.Connections, NewConnections())
	if s.ProbeEvery, s.UserAgent = cmp.Or(c.ProbeEvery, DefaultProbeEvery), cmp.Or(c.UserAgent, DefaultUserAgent); s.ProbeEvery < 0 {
		problems = append(problems, fmt.Errorf("probe_every %v is negative; set a duration such as 30s", c.ProbeEvery))
	}
	if s.Confirm == ConfirmLenient && s.Transport != TransportWorkspace && s.Transport != TransportAuto {
		problems = append(problems, &setting.Problem{Key: "zerobus.confirm", Value: s.Confirm, Rule: "is for transport workspace", Remedy: "take it out with " + s.Transport})
	}
	if len(problems) == 0 {
		problems = s.parseAddresses()
	}
	if len(problems) > 0 {
		return settings{}, fmt.Errorf("zerobus: %w", errors.Join(problems...))
	}
	return s, nil
}

// parseAddresses parses addresses that have passed the check.
func (s *settings) parseAddresses() (problems []error) {
	s.base, _ = url.Parse(s.WorkspaceURL)
	s.token = cmp.Or(s.TokenURL, s.WorkspaceURL+defaultTokenPath)
	s.ingest = s.WorkspaceURL + s.IngestPath
	if s.Transport != TransportWorkspace && s.Endpoint != "" {
		if id := s.toward(choice{endpoint: s.Endpoint, workspaceID: s.WorkspaceID}).native.workspaceID; !plainID.MatchString(id) {
			problems = append(problems, &setting.Problem{Key: "zerobus.workspace_id", Value: id, Rule: "is no workspace id",
				Remedy: "set the number after ?o= in the workspace's address"})
		}
	}
	if name := s.table.String(); s.Transport == TransportGRPC && !inASCII(name) {
		problems = append(problems, &setting.Problem{Key: "zerobus.table", Value: name, Rule: "holds characters that gRPC metadata cannot carry",
			Remedy: "use transport rest, or a name in ASCII"})
	}
	return problems
}

// hostPort returns host:port of a URL, with the default port of its scheme.
func hostPort(u *url.URL) string {
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), map[string]string{"http": "80"}[u.Scheme], "443"))
}

func inASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > '~' })
}

// tokenParams returns the parameters that bind a token to the endpoint: an audience,
// and the privileges on one table (RFC 9396). Form and names are those of Databricks'
// open Zerobus SDKs: https://github.com/databricks/zerobus-sdk
func (s *settings) tokenParams() url.Values {
	type grant struct {
		Type       string   `json:"type"`
		Privileges []string `json:"privileges"`
		ObjectType string   `json:"object_type"`
		ObjectPath string   `json:"object_full_path"`
		Operations []string `json:"operations,omitempty"`
	}
	const kind = "unity_catalog_privileges"
	t := s.table
	grants := []grant{
		{kind, []string{"USE CATALOG"}, "CATALOG", t.Catalog, nil},
		{kind, []string{"USE SCHEMA"}, "SCHEMA", t.Catalog + "." + t.Schema, nil},
		{kind, []string{"SELECT", "MODIFY"}, "TABLE", t.String(), []string{"zerobuswrite"}},
	}
	if s.OmitOperations {
		grants[2].Operations = nil
	}
	text, err := json.Marshal(grants)
	if err != nil {
		panic(err) // strings always marshal
	}
	return url.Values{
		"resource":              {"api://databricks/workspaces/" + s.native.workspaceID + "/zerobusDirectWriteApi"},
		"authorization_details": {string(text)},
	}
}
