package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
)

func newDDLCommand() *cobra.Command {
	var optional, dedupe, alter bool
	var blueprint, principal string
	cmd := &cobra.Command{
		Use:   "ddl",
		Short: "Print the SQL that makes the table and its grants",
		Long: `ddl prints CREATE CATALOG, SCHEMA and TABLE for the columns of the blueprint, and
the GRANT statements the service principal needs. Catalog, schema, table and
principal come from the configuration; what is missing there is taken from the
integration page's example. It connects to nothing, unless --alter asks for the
difference to the live table.`,
		Example: `  bridge ddl --config config.yaml
  bridge ddl --blueprint blueprint.yaml --set zerobus.table=datafly.events.stream
  bridge ddl --alter --config config.yaml     what the live table lacks
  bridge ddl --dedupe-view         the view that keeps one row per message_id, too`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if alter {
				return printAlter(cmd, blueprint, optional)
			}
			m, err := compileOffline(cmd, blueprint, optional)
			if err != nil {
				return err
			}
			o := config.FromFlags(cmd.Flags(), os.Environ())
			o.Partial = true
			cfg, err := config.Load(o)
			if err != nil {
				return &usageError{err}
			}
			z := cfg.Zerobus
			table, err := zerobus.ParseTableName(cmp.Or(z.Catalog, "datafly"), cmp.Or(z.Schema, "events"), cmp.Or(z.Table, "stream"))
			if err != nil {
				return &usageError{err}
			}
			sql := zerobus.DDL(table, pipeline.RowColumns(m), cmp.Or(principal, z.ClientID, "<service_principal_application_id>"))
			if dedupe {
				sql += "\n" + zerobus.DedupeView(table)
			}
			if _, err := io.WriteString(cmd.OutOrStdout(), sql); err != nil {
				return fmt.Errorf("writing the SQL: %w", err)
			}
			return nil
		},
	}
	config.AddFlags(cmd.Flags(), "brokers", "topics", "topic", "group", "log-level")
	cmd.Flags().StringVar(&blueprint, "blueprint", "", "blueprint file (mapping.blueprint)")
	cmd.Flags().StringVar(&principal, "principal", "", "application id to grant to (default zerobus.client_id)")
	cmd.Flags().BoolVar(&optional, "optional", false, "include the blueprint's optional columns")
	cmd.Flags().BoolVar(&alter, "alter", false, "print the ALTER TABLE statements that the live table needs to fit the blueprint; needs the whole configuration")
	cmd.Flags().BoolVar(&dedupe, "dedupe-view", false, "also print a view with one row per message_id")
	return cmd
}

// alterTimeout bounds the reading of the live table's columns.
const alterTimeout = 30 * time.Second

// printAlter prints what the live table lacks. Nothing is printed where it fits.
func printAlter(cmd *cobra.Command, blueprint string, optional bool) error {
	m, err := compileOffline(cmd, blueprint, optional)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	client, err := zerobus.New(zerobusConfig(cfg), newLogger(logFor(cfg.Log, cmd.ErrOrStderr()), zapcore.AddSync(cmd.ErrOrStderr())), nil)
	if err != nil {
		return &usageError{err}
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), alterTimeout)
	defer cancel()
	have, err := client.Columns(ctx)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(cmd.OutOrStdout(), zerobus.AlterDiff(client.Table(), pipeline.RowColumns(m), have)); err != nil {
		return fmt.Errorf("writing the SQL: %w", err)
	}
	return nil
}
