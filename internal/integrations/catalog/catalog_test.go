package catalog_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/mapping"
)

// page is the table of configuration fields of Signal's integration page, and the values
// of the call that it shows.
const page = `
workspace_url | string | Yes | https://abc-12345.cloud.databricks.com
client_id | string | Yes | 00000000-0000-0000-0000-000000000000
client_secret | secret | Yes | YOUR_CLIENT_SECRET
catalog | string | Yes | datafly
schema | string | Yes | events
table | string | Yes | stream
`

func vendor(t *testing.T, dir string) catalog.Vendor {
	t.Helper()
	all, err := catalog.Vendors(dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("got %d vendors, %v, want one", len(all), err)
	}
	return all[0]
}

func TestCatalogIsThatOfThePage(t *testing.T) {
	v := vendor(t, "")
	if v.Key != "databricks_zerobus" || v.Name != "Databricks (Zerobus Ingest)" || v.Category != "warehouse" || v.Status != "beta" || v.Description == "" || !strings.HasPrefix(v.Website, "https://") {
		t.Errorf("got %+v, want the vendor of the page", v)
	}
	var got strings.Builder
	for _, f := range v.ConfigFields {
		required := "No"
		if f.Required {
			required = "Yes"
		}
		got.WriteString(strings.Join([]string{f.Key, f.Type, required, f.Placeholder}, " | ") + "\n")
		if f.Label == "" || len(f.HelpText) < 20 || !strings.HasSuffix(f.HelpText, ".") || strings.ContainsAny(f.HelpText, "\n#`") {
			t.Errorf("%s: got label %q and help %q", f.Key, f.Label, f.HelpText)
		}
	}
	if got.String() != strings.TrimPrefix(page, "\n") {
		t.Errorf("got\n%swant%s", got.String(), page)
	}
	v.ConfigFields[0].Key = "changed"
	if again := vendor(t, ""); again.ConfigFields[0].Key != "workspace_url" {
		t.Error("the fields of two callers are shared")
	}
}

// The JSON has the names of Signal's catalog, and no null where a client expects an object
// or a list.
func TestShapeOfTheCatalog(t *testing.T) {
	text, err := json.Marshal(vendor(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"config_fields":[{"key":"workspace_url","label":"Workspace URL","type":"string","required":true,"placeholder":`, `"help_text":`,
		`"variants":[{"key":"default","name":"Default","description":`, `"default_config":{}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("got %s, want %s in it", text, want)
		}
	}
	if strings.Contains(string(text), "null") || strings.Contains(string(text), "mappings") {
		t.Errorf("got %s, want no null and no document", text)
	}
}

func TestBuiltinVariants(t *testing.T) {
	v := vendor(t, "")
	var keys []string
	for _, v := range v.Variants {
		keys = append(keys, v.Key)
		if v.Name == "" || v.Description == "" || v.Problem != "" || v.Blueprint != "" {
			t.Errorf("got %+v, want a name, a description and no document", v)
		}
	}
	if !slices.Equal(keys, mapping.Builtins()) {
		t.Errorf("got %q, want %q", keys, mapping.Builtins())
	}
	if adds := v.Variants[0].Adds; len(adds) != 0 {
		t.Errorf("default adds %q, want nothing", adds)
	}
	if adds := v.Variants[1].Adds; !slices.Contains(adds, "order_id") || !slices.Contains(adds, "items") || slices.Contains(adds, "event_name") || slices.Contains(adds, "page_title") {
		t.Errorf("retail adds %q, want its own columns only", adds)
	}
}

func TestVariantsOfFiles(t *testing.T) {
	const media = "version: 2\nname: Media\ndescription: Plays.\nextends: default\nglobal: {mappings: [{source: properties.position_s, target: position, type: INT}, {source: event, target: EVENT_NAME}]}\n"
	dir := t.TempDir()
	for name, text := range map[string]string{
		"media.yaml": media, "shop-2.yml": "version: 2\nextends: retail\n", "plain.json": `{"version": 2, "extends": "default"}`,
		"bad.yaml": "version: 2\nextends: default\nglobals: {}\n", "broken.yaml": "{", "unfit.yaml": "version: 2\nglobal: {mappings: [{source: a, target: a, type: INT, default_value: x}]}\n",
		"retail.yaml": media, "media.json": media, "My Shop.yaml": media, "large.yaml": media + "#" + strings.Repeat("x", 128<<10), ".hidden.yaml": "{", "readme.txt": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	problems := map[string]string{ // by key; "" is a variant that can be installed
		"default": "", "retail": "", "media": "", "shop-2": "", "plain": "", "bad": `unknown key "globals"`, "broken": "not valid YAML", "unfit": "default_value",
		"My Shop": "is not the name of a variant", "folder": "is a directory", "large": "cannot be read: ",
	}
	got := vendor(t, dir).Variants
	taken := map[string]string{}
	for _, v := range got {
		if want, known := problems[v.Key]; !known || (v.Problem == "") != (want == "") || !strings.Contains(v.Problem, want) {
			if !strings.Contains(v.Problem, "there is another variant "+v.Key) {
				t.Errorf("%s: got problem %q, want %q", v.Key, v.Problem, want)
			}
			taken[v.Key] = v.Problem
		}
		if v.Problem != "" && v.Blueprint != "" {
			t.Errorf("%s: has a problem and a document", v.Key)
		}
	}
	if len(got) != len(problems)+2 || taken["retail"] == "" || taken["media"] == "" {
		t.Errorf("got %d variants and the taken names %q, want %d, with retail and media taken", len(got), taken, len(problems)+2)
	}
	at := slices.IndexFunc(got, func(v catalog.Variant) bool { return v.Name == "Media" })
	if at < 0 || got[at].Key != "media" || got[at].Description != "Plays." || !slices.Equal(got[at].Adds, []string{"position"}) {
		t.Fatalf("got %+v, want media with its name, description and column", got)
	}
	if _, err := mapping.Parse("media", []byte(got[at].Blueprint)); err != nil {
		t.Errorf("the document of media does not parse: %v", err)
	}
}

func TestAFolderThatIsMissing(t *testing.T) {
	all, err := catalog.Vendors(filepath.Join(t.TempDir(), "none"))
	if err == nil || !strings.Contains(err.Error(), "reading store.variants_dir") || !strings.Contains(err.Error(), "name a folder") {
		t.Errorf("got error %v, want one that names the key and the remedy", err)
	}
	if len(all) != 1 || len(all[0].Variants) != len(mapping.Builtins()) {
		t.Errorf("got %+v, want the catalog with the built-in variants", all)
	}
}
