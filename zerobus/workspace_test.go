package zerobus_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/zerobus"
)

// TestWorkspaceClient calls an API of the workspace: with a plain token, with another one
// after 401, and with an error that repeats no secret.
func TestWorkspaceClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tokens, agents []string
		refuse := 1
		b := virtualOver(t, func(c *zerobus.Config) { c.UserAgent = "test/1" }, func(space http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/api/2.1/unity-catalog/metastore_summary" {
					space.ServeHTTP(w, r)
					return
				}
				tokens, agents = append(tokens, r.Header.Get("Authorization")), append(agents, r.UserAgent())
				if refuse--; refuse >= 0 {
					fail(w, 401, "UNAUTHENTICATED", "no such token")
					return
				}
				if len(tokens) > 2 {
					fail(w, 403, "PERMISSION_DENIED", "secret "+secretOne+" of "+tokens[len(tokens)-1])
					return
				}
				w.Header().Set("X-Databricks-Org-Id", "1234567890123456")
				fmt.Fprint(w, `{"metastore_id":"m","cloud":"aws","region":"us-west-2"}`)
			})
		})
		defer b.Close()
		m, id, err := b.Workspace().Metastore(t.Context())
		if err != nil || id != "1234567890123456" || m.Cloud != "aws" || m.Region != "us-west-2" {
			t.Fatalf("Metastore = %+v, %q, %v", m, id, err)
		}
		if len(tokens) != 2 || tokens[0] == tokens[1] || b.space.mints() != 2 || agents[1] != "test/1" {
			t.Errorf("tokens %q of %d, agents %q; want a second token after 401", tokens, b.space.mints(), agents)
		}
		_, _, err = b.Workspace().Metastore(t.Context())
		e, ok := errors.AsType[*databricks.Error](err)
		if !ok || e.Code != "PERMISSION_DENIED" || strings.Contains(err.Error(), secretOne) || strings.Contains(err.Error(), "of-test") {
			t.Errorf("error %v; want PERMISSION_DENIED without secrets", err)
		}
	})
}
