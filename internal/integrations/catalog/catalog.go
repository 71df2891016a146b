// Package catalog lists what can be installed: vendors, the fields that a person fills
// in, and the variants of the blueprint. The shapes are those of Signal's catalog.
package catalog

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
	Key         string `json:"key"` // of Target, or topics
	Label       string `json:"label"`
	Type        string `json:"type"` // string, secret, list
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
}

// Vendors returns the catalog: the built-in variants, and those of the files in dir, if
// it is not empty.
func Vendors(dir string) ([]Vendor, error) { return nil, nil }
