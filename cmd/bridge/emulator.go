package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/zerobus/emulator"
)

// emulatorDrain is how long active requests may take when the emulator stops.
const emulatorDrain = 5 * time.Second

// emulatorFlags is the command line of bridge emulator.
type emulatorFlags struct {
	cfg     emulator.Config
	listen  string
	zerobus string
	ddl     string
	caOut   string
	verbose bool

	zerobusGiven bool // the user has chosen the address
}

func newEmulatorCommand() *cobra.Command {
	var f emulatorFlags
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "Serve an emulated Zerobus workspace for tests",
		Long: `emulator serves what a Databricks workspace with Zerobus Ingest serves: the OAuth
token endpoint, the ingest endpoint, the Unity Catalog columns of a table and,
on a second port, the Zerobus endpoint with gRPC streams and the REST insert. It
validates rows against the table's columns and keeps them, to be counted and
read. Faults make it misbehave on request. See docs/emulator.md.

The admin API under /emulator/ asks for no credentials. Keep the address on
loopback unless everyone who can reach it may read and change the rows.`,
		Example: `  bridge emulator
  bridge emulator --ddl table.sql --jsonl rows.jsonl
  bridge emulator --tls --ca-out ca.pem --latency p50=150ms,p95=500ms
  bridge emulator --zerobus-listen 127.0.0.1:9443 --stream-max-age 2s --auth off
  curl -s 127.0.0.1:8090/emulator/tables/datafly.events.stream/rows?limit=3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.zerobusGiven = cmd.Flags().Changed("zerobus-listen")
			e, err := f.build(cmd.ErrOrStderr())
			if err != nil {
				return &usageError{err}
			}
			stoppingOf(cmd.Context()).allow(emulatorDrain + stopGrace)
			return f.serve(cmd.Context(), e, cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8090", "`address` to serve on; port 0 takes a free one")
	flags.StringVar(&f.zerobus, "zerobus-listen", "", "`address` of the Zerobus endpoint, gRPC and REST on one port; none when given empty (default the port after --listen's, 127.0.0.1:8091)")
	settings := flag.NewFlagSet("", flag.ContinueOnError)
	f.cfg.Flags(settings)
	flags.AddGoFlagSet(settings)
	flags.StringVar(&f.ddl, "ddl", "", "SQL `file` whose CREATE TABLE statements make the tables (default datafly.events.stream with 13 columns)")
	flags.StringVar(&f.caOut, "ca-out", "", "`file` to write the certificate to trust to; needs --tls")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log every request")
	return cmd
}

// build makes the emulator. Its errors are errors of usage.
func (f *emulatorFlags) build(stderr io.Writer) (*emulator.Emulator, error) {
	if f.caOut != "" && !f.cfg.TLS {
		return nil, errors.New("--ca-out: there is no certificate without --tls; add --tls or omit --ca-out")
	}
	if f.cfg.MaxRows < 0 {
		return nil, fmt.Errorf("--max-rows is %d; use 0 to keep all, or more", f.cfg.MaxRows)
	}
	next, err := portAfter(f.listen)
	if err != nil {
		return nil, fmt.Errorf("--listen %q: %w; write host:port, such as 127.0.0.1:8090", f.listen, err)
	}
	if !f.zerobusGiven {
		f.zerobus = next
	} else if _, err := portAfter(f.zerobus); f.zerobus != "" && err != nil {
		return nil, fmt.Errorf("--zerobus-listen %q: %w; write host:port, such as 127.0.0.1:8091", f.zerobus, err)
	}
	if f.ddl != "" {
		script, err := plaintext.ReadFile(f.ddl, plaintext.MaxText)
		if err != nil {
			return nil, fmt.Errorf("--ddl: %w; name a readable SQL file", err)
		}
		if len(strings.TrimSpace(string(script))) == 0 {
			return nil, fmt.Errorf("--ddl %s: the file is empty; write a CREATE TABLE statement into it", f.ddl)
		}
		f.cfg.DDL = string(script)
	}
	level := "info"
	if f.verbose {
		level = "debug"
	}
	f.cfg.Log = newLogger(config.Log{Level: level, Format: "console"}, zapcore.AddSync(stderr))
	return emulator.New(f.cfg)
}

// portAfter is the address with the port that follows; port 0 stays.
func portAfter(address string) (string, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", fmt.Errorf("port %q is not a number from 0 to 65535", text)
	}
	if port != 0 && port < 65535 {
		port++
	}
	return net.JoinHostPort(host, strconv.FormatUint(port, 10)), nil
}

// serve runs the emulator until ctx ends.
func (f *emulatorFlags) serve(ctx context.Context, e *emulator.Emulator, stderr io.Writer) (err error) {
	defer func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), emulatorDrain)
		defer cancel()
		err = errors.Join(err, e.Close(drain))
	}()
	if err := e.Start(f.listen); err != nil {
		return err
	}
	if err := f.startZerobus(e); err != nil {
		return err
	}
	if f.caOut != "" {
		if err := os.WriteFile(f.caOut, e.CAPEM(), 0o644); err != nil {
			return fmt.Errorf("--ca-out: %w; give a path that can be written", err)
		}
	}
	f.announce(e, stderr)
	<-ctx.Done()
	return nil
}

// startZerobus starts the Zerobus endpoint. If the default address is taken, it
// uses a free one.
func (f *emulatorFlags) startZerobus(e *emulator.Emulator) error {
	if f.zerobus == "" {
		return nil
	}
	err := e.StartZerobus(f.zerobus)
	if err == nil || f.zerobusGiven {
		return err
	}
	host, _, herr := net.SplitHostPort(f.zerobus)
	if herr != nil {
		return err
	}
	return e.StartZerobus(net.JoinHostPort(host, "0"))
}

// announce prints the addresses and how to configure the bridge for them.
func (f *emulatorFlags) announce(e *emulator.Emulator, stderr io.Writer) {
	tables := append(e.Tables(), "datafly.events.stream")
	name := strings.SplitN(tables[0], ".", 3)
	secret := emulator.DefaultClientSecret
	if f.cfg.ClientSecret != secret {
		secret = `"" # the one given with --client-secret`
	}
	fmt.Fprintf(stderr, `emulated workspace at %s; stop it with Ctrl-C

zerobus:
  workspace_url: %s
  client_id: %s
  client_secret: %s
  catalog: %s
  schema: %s
  table: %s
`, e.URL(), e.URL(), f.cfg.ClientID, secret, name[0], name[1], name[2])
	if f.caOut != "" {
		fmt.Fprintf(stderr, "  ca_file: %s\n", f.caOut)
	} else if f.cfg.TLS {
		fmt.Fprintln(stderr, "\nThe certificate is signed by a new CA: write it to a file with --ca-out.")
	}
	if url := e.ZerobusURL(); url != "" {
		fmt.Fprintf(stderr, `
The bridge finds the transport with these. To test one of them, add it:

  transport: workspace # requests to the workspace
  transport: grpc      # streams to the Zerobus endpoint at %s
  transport: rest      # requests to that endpoint
`, url)
	}
	if len(tables) > 2 {
		fmt.Fprintf(stderr, "\ntables: %s\n", strings.Join(tables[:len(tables)-1], ", "))
	}
	if host, _, err := net.SplitHostPort(f.listen); err == nil && host != "localhost" && !net.ParseIP(host).IsLoopback() {
		fmt.Fprintf(stderr, "\nwarning: %s is not a loopback address; everyone who can reach it may read and change everything under /emulator/\n", f.listen)
	}
	fmt.Fprintf(stderr, "\nrows, newest first: %s/emulator/tables/%s/rows\n", e.URL(), tables[0])
}
