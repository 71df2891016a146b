package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/mapping"
)

// schemaHome is the address of docs/schema for editors.
const schemaHome = "https://raw.githubusercontent.com/datafly/bridge/main/docs/schema/"

// schemaNames are the kinds of files that have a schema.
var schemaNames = []string{"blueprint", "config"}

func newSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema blueprint|config",
		Short: "Print the JSON Schema of a blueprint or of the configuration file",
		Long: `schema prints a JSON Schema (draft 2020-12) with which editors complete keys,
show their meaning and mark mistakes. docs/schema holds the same two files. Editors
that use the YAML language server read it from a first line such as
  # yaml-language-server: $schema=blueprint.schema.json`,
		Example: `  bridge schema blueprint > blueprint.schema.json
  bridge schema config > config.schema.json`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: schemaNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := schemaText(args[0])
			if err != nil {
				return err
			}
			return printText(cmd.OutOrStdout(), string(text))
		},
	}
}

func schemaText(name string) ([]byte, error) {
	schema := mapping.Schema()
	if name == "config" {
		example, err := document("config.example.yaml")
		if err == nil {
			schema, err = config.JSONSchema(example)
		}
		if err != nil {
			return nil, err
		}
	}
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["$id"] = schemaHome + name + ".schema.json"
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the schema: %w", err)
	}
	return append(text, '\n'), nil
}
