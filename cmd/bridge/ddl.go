package main

import (
	"cmp"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
)

// lookupTimeout bounds the look-ups before a command does its work.
const lookupTimeout = 30 * time.Second

func newDDLCommand() *cobra.Command {
	var optional, dedupe, alter, rescue bool
	var blueprint, principal string
	cmd := &cobra.Command{
		Use:   "ddl",
		Short: "Print the SQL for the table and its grants",
		Long: `ddl prints CREATE CATALOG, SCHEMA and TABLE for the columns of the blueprint, and
the GRANT statements that the service principal needs. Catalog, schema, table and
principal come from the configuration. For those that are missing there, ddl uses
those of the integration page's example. It connects to nothing unless --alter is
given, which prints the difference to the live table.`,
		Example: `  bridge ddl --config config.yaml
  bridge ddl --blueprint blueprint.yaml --set zerobus.table=datafly.events.stream
  bridge ddl --alter --config config.yaml     what the live table lacks
  bridge ddl --integration orders             the table of one of several integrations
  bridge ddl --dedupe-view                    also a view that shows each message_id once
  bridge ddl --rescue                         also a column for fields that do not fit`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := compileOffline(cmd, blueprint, optional)
			if err != nil {
				return err
			}
			if alter {
				return printAlter(cmd, pipeline.RowColumns(m), rescue, dedupe)
			}
			cfg, err := loadConfig(cmd, true)
			if err != nil {
				return err
			}
			z := cfg.Zerobus
			table := zerobus.TableName{Catalog: cmp.Or(z.Catalog, "datafly"), Schema: cmp.Or(z.Schema, "events"), Table: cmp.Or(z.Table, "stream")}
			columns, tag := pipeline.RowColumns(m), ""
			if rescue {
				columns, tag = append(columns, zerobus.Rescue), "\n"+zerobus.RescueTag(table)
			}
			sql := zerobus.DDL(table, columns, cmp.Or(principal, z.ClientID, "<service_principal_application_id>")) + tag
			return printText(cmd.OutOrStdout(), sql+view(table, dedupe))
		},
	}
	config.AddFlags(cmd.Flags(), "brokers", "topics", "topic", "group", "log-level", "integration")
	addBlueprint(cmd, &blueprint)
	cmd.Flags().StringVar(&principal, "principal", "", "application id to grant to (default zerobus.client_id)")
	cmd.Flags().BoolVar(&optional, "optional", false, "include the blueprint's optional columns")
	cmd.Flags().BoolVar(&alter, "alter", false, "print the ALTER TABLE statements that the live table needs for the blueprint; needs the whole configuration")
	cmd.Flags().BoolVar(&rescue, "rescue", false, "include a rescue column, which takes the fields of JSON rows that do not fit the table, and the statement that sets its tag")
	cmd.Flags().BoolVar(&dedupe, "dedupe-view", false, "also print a view that shows each message_id once")
	return cmd
}

// printAlter prints what the live table lacks, and nothing if that is nothing.
func printAlter(cmd *cobra.Command, want []zerobus.Column, rescue, dedupe bool) error {
	cfg, err := loadConfig(cmd, false)
	if err != nil {
		return err
	}
	client, have, there, err := readTable(cmd, cfg, nil, rescue)
	if err != nil {
		return err
	}
	tag := ""
	if rescue && there == "" {
		want, tag = append(want, zerobus.Rescue), zerobus.RescueTag(client.Table())
	}
	return printText(cmd.OutOrStdout(), zerobus.AlterDiff(client.Table(), want, have)+tag+view(client.Table(), dedupe))
}

func view(table zerobus.TableName, wanted bool) string {
	if !wanted {
		return ""
	}
	return "\n" + zerobus.DedupeView(table)
}
