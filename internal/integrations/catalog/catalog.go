// Package catalog lists what can be installed: vendors, the fields that a person fills
// in, and the variants of the blueprint. The shapes are those of Signal's catalog.
package catalog

import (
	"slices"
	"strings"
	"sync"

	documents "github.com/datafly/bridge"
	"github.com/datafly/bridge/internal/config"
)

// Key is the vendor that the bridge delivers to.
const Key = "databricks_zerobus"

// Vendor is an entry of the catalog.
type Vendor struct {
	Key          string    `json:"key"`
	Name         string    `json:"name"`
	Description  string    `json:"description"`
	Category     string    `json:"category"`
	Status       string    `json:"status"` // ga or beta
	Website      string    `json:"website"`
	ConfigFields []Field   `json:"config_fields"`
	Variants     []Variant `json:"variants"`
}

// Field is one field of the form.
type Field struct {
	Key         string `json:"key"` // of Target
	Label       string `json:"label"`
	Type        string `json:"type"` // string or secret
	Required    bool   `json:"required"`
	Placeholder string `json:"placeholder,omitempty"`
	HelpText    string `json:"help_text,omitempty"`
}

// Variant is a blueprint to begin with.
type Variant struct {
	Key           string         `json:"key"`
	Name          string         `json:"name"`
	Description   string         `json:"description"`
	Adds          []string       `json:"adds,omitempty"` // columns beyond those of default
	DefaultConfig map[string]any `json:"default_config"`
	// Problem is why a variant of a file cannot be installed; empty: it can.
	Problem string `json:"problem,omitempty"`
	// Blueprint is the document of a variant of a file, which an install copies. Empty
	// for a built-in one: see mapping.Builtin.
	Blueprint string `json:"-"`
}

// Vendors returns the catalog: the built-in variants, and those of the files in dir, if
// it is not empty. A broken file is a variant with a Problem. With an error, which is
// about dir itself, the catalog has the built-in variants.
func Vendors(dir string) ([]Vendor, error) {
	variants, err := variants(dir)
	return []Vendor{{
		Key:  Key,
		Name: "Databricks (Zerobus Ingest)",
		Description: "Writes each event as one row to a Delta table through Zerobus Ingest, without a SQL warehouse. " +
			"Rows can be queried within seconds.",
		Category:     "warehouse",
		Status:       "beta",
		Website:      "https://docs.databricks.com/aws/en/ingestion/zerobus-ingest",
		ConfigFields: slices.Clone(fields()),
		Variants:     variants,
	}}, err
}

// fields returns the fields of the integration page. Their help is that of the
// configuration's keys.
var fields = sync.OnceValue(func() []Field {
	all := []Field{
		{Key: "workspace_url", Label: "Workspace URL", Placeholder: "https://abc-12345.cloud.databricks.com"},
		{Key: "client_id", Label: "Client ID", Placeholder: "00000000-0000-0000-0000-000000000000"},
		{Key: "client_secret", Label: "Client secret", Type: "secret", Placeholder: "YOUR_CLIENT_SECRET"},
		{Key: "catalog", Label: "Catalog", Placeholder: "datafly"},
		{Key: "schema", Label: "Schema", Placeholder: "events"},
		{Key: "table", Label: "Table", Placeholder: "stream"},
	}
	example, _ := documents.Documents.ReadFile("config.example.yaml")
	comments, _ := config.Comments(string(example)) // a test reads them
	for i := range all {
		f := &all[i]
		help, _, _ := strings.Cut(comments["zerobus."+f.Key], "Required")
		f.HelpText, f.Required = strings.Join(strings.Fields(help), " "), true
		if f.Type == "" {
			f.Type = "string"
			continue
		}
		f.HelpText += " It is stored sealed and not shown again."
	}
	return all
})
