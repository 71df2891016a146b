package databricks

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// answering is a workspace that answers everything with one body.
type answering struct{ id, body string }

func (a answering) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{workspaceHeader: {a.id}}, Body: io.NopCloser(strings.NewReader(a.body))}, nil
}

// FuzzDiscovery reads any answers to the questions about the endpoint. What comes out is a
// host name of Databricks that the workspace id leads, or an error.
func FuzzDiscovery(f *testing.F) {
	for _, seed := range [][3]string{
		{"1234567890123456", `{"cloud":"aws","region":"us-west-2"}`, `{}`},
		{"", `{"cloud":"azure","region":"westeurope"}`, `{"workspace_id":1234567890123456}`},
		{"", `{"cloud":"gcp","region":"us-east1"}`, `{"workspace_id":"9"}`},
		{"evil.example/", `{"cloud":"aws","region":"x.evil.example/"}`, `{"workspace_id":-1.5e9}`},
		{"1", `{"cloud":"moon","region":null}`, `[]`},
		{"1", `{"cloud":"aws","region":"us-west-2@evil.example"}`, `{"workspace_id":{"a":1}}`},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, id, summary, assignment string) {
		c := &Client{URL: "https://abc.cloud.databricks.com", Token: func(context.Context) (string, error) { return "t", nil }}
		c.HTTP = &http.Client{Transport: answering{id, summary}}
		m, found, err := c.Metastore(t.Context())
		if err != nil {
			return
		}
		if found == "" {
			c.HTTP = &http.Client{Transport: answering{"", assignment}}
			if found, err = c.WorkspaceID(t.Context()); err != nil {
				return
			}
		}
		host, err := EndpointHost(found, m.Region, m.Cloud)
		if err != nil {
			return
		}
		if found == "" || strings.Trim(found, "0123456789") != "" {
			t.Errorf("workspace id %q is no number", found)
		}
		u, err := url.Parse("https://" + host)
		known := false
		for _, domain := range domains {
			known = known || strings.HasSuffix(host, "."+domain)
		}
		if err != nil || u.Host != host || !known || !strings.HasPrefix(host, found+".zerobus.") || strings.Count(host, ".zerobus.") != 1 {
			t.Errorf("host %q of %q, %q, %q", host, id, summary, assignment)
		}
	})
}
