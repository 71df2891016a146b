package app

import (
	"context"
	"slices"

	"github.com/datafly/bridge/internal/admin"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/console"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/operations"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/setting"
)

// newAdmin returns the server of the install API and the console that uses it.
func (a *App) newAdmin(cfg *config.Config) (*ops.Server, error) {
	s := cfg.Admin
	host, _ := setting.SplitAddress(s.Address, 0)
	who, err := admin.NewAccess(access.Files{Tokens: s.TokenFile, JWTSecret: s.JWTSecretFile, JWKS: s.JWKSFile, Audience: s.JWTAudience}, setting.Loopback(host), a.log)
	if err != nil {
		return nil, err
	}
	if keys, err := cfg.Store.ReadKeys(); err == nil && len(keys) > 0 {
		who.SealSessions(keys[0]) // which all members have: a browser may reach any of them
	}
	c := admin.Config{Manager: a.installed.manager, Operations: operations.New(a.operations()), Access: who, Group: a.group.Status, RateLimit: s.RateLimit, Log: a.log,
		Console: console.New(console.Config{Access: who, Admin: true, Facts: a.facts}), Live: a.page.Handler(who)}
	api := admin.New(c)
	server := ops.ServerConfig{Name: "admin endpoints", Key: "admin.address", Address: s.Address, Example: "127.0.0.1:8084", Handler: api, Stop: api.Stop}
	if s.TLSCertFile != "" {
		server.Certificate = ops.Certificate(s.TLSCertFile, s.TLSKeyFile, "admin.tls_cert_file and admin.tls_key_file", a.log)
	}
	return ops.NewServer(server, a.log), nil
}

// operations returns what the operations of the API need.
func (a *App) operations() operations.Options {
	return operations.Options{
		Integration: func(ctx context.Context, id string) (config.Integration, error) {
			shown, err := a.installed.manager.Get(ctx, id)
			if err != nil {
				return config.Integration{}, err
			}
			for _, i := range a.wantedNow() {
				if i.Name == shown.Slug {
					return i, nil
				}
			}
			return config.Integration{}, &manage.Error{Code: manage.ValidationFailed, Message: "integration " + shown.Slug + " cannot run: " + shown.Observed.Reason, Remedy: shown.Observed.Remedy}
		},
		All: a.wantedNow, Base: a.base.Load,
		StoreTopics: func() []string { topic := a.base.Load().Store.Topic; return []string{topic, topic + "-audit"} },
		Kafka:       a.lookUps, Connections: a.connections, Version: a.o.Version, Log: a.log,
		Note: func(ctx context.Context, slug, action, by, requestID, reason string, result map[string]any) error {
			changed := make(map[string]store.Changed, len(result))
			for key, value := range result {
				changed[key] = store.Changed{New: value}
			}
			return a.installed.manager.Note(ctx, slug, action, changed, manage.Who{By: by, Reason: reason, RequestID: requestID})
		},
	}
}

// wantedNow returns the integrations that can run, disabled ones too.
func (a *App) wantedNow() []config.Integration {
	all, _ := a.installed.manager.Wanted(a.installed.state())
	return slices.Clone(all)
}
