package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// Schema is what rows are made from: the blueprint, which a reload may replace,
// and the table's columns, which may change, compiled together. Its methods are
// safe for concurrent use.
type Schema struct {
	client  *zerobus.Client
	options mapping.Options // without what the table decides
	log     *zap.Logger
	current atomic.Pointer[Compiled]

	mu          sync.Mutex // guards the fields below, and every change of current
	in          inputs
	compiledFor []zerobus.Column // the columns that current was compiled for
}

// inputs are what a mapping is compiled from.
type inputs struct {
	blueprint *mapping.Blueprint
	digest    string // of the blueprint's text
	clusterID string
	columns   []zerobus.Column // of the table as last read; nil: they cannot be read
	tableRead bool             // once; clusterID and columns are known
}

// Compiled is a mapping and the sink's version of the rows that it makes.
type Compiled struct {
	*mapping.Mapping
	version int64
}

// BlueprintMismatch is the error of a blueprint that does not fit the table.
type BlueprintMismatch struct{ Err error }

func (m *BlueprintMismatch) Error() string {
	return "the blueprint does not fit the table: " + m.Err.Error()
}

// Unwrap returns the mapping's error.
func (m *BlueprintMismatch) Unwrap() error { return m.Err }

// NewSchema reads the blueprint that the configuration names, and compiles it
// without the table, so that a fault of it is reported before any connection.
func NewSchema(cfg *config.Config, client *zerobus.Client, log *zap.Logger) (*Schema, error) {
	blueprint, digest, err := ReadBlueprint(cfg.Mapping)
	if err != nil {
		return nil, err
	}
	s := &Schema{client: client, options: MappingOptions(cfg), log: log, in: inputs{blueprint: blueprint, digest: digest}}
	_, err = blueprint.Compile(s.options)
	return s, err
}

// ReadBlueprint returns the blueprint of the settings, with a digest of its text: that of
// a file, the text in the settings, or a built-in one. The digest of the built-in
// default is empty.
func ReadBlueprint(s mapping.Settings) (blueprint *mapping.Blueprint, digest string, err error) {
	name, data := s.Blueprint, []byte(s.BlueprintText)
	switch {
	case s.Blueprint != "":
		if data, err = plaintext.ReadFile(s.Blueprint, plaintext.MaxText); err != nil {
			return nil, "", fmt.Errorf("reading mapping.blueprint: %w; name a readable file, or leave the key empty for the built-in blueprint", err)
		}
	case s.BlueprintText != "":
		name = blueprintTextKey
	case s.Variant == "" || s.Variant == mapping.Builtins()[0]:
		return mapping.Default(), "", nil
	default:
		var found bool
		if data, found = mapping.Builtin(s.Variant); !found {
			return nil, "", fmt.Errorf("mapping.variant %q is no built-in blueprint; the variants are %s", s.Variant, strings.Join(mapping.Builtins(), ", "))
		}
		name = s.Variant + ".yaml"
	}
	blueprint, err = mapping.Parse(name, data)
	sum := sha256.Sum256(data)
	return blueprint, hex.EncodeToString(sum[:]), err
}

// CompileOffline compiles the blueprint that the configuration names without a table, with
// its optional columns or without.
func CompileOffline(cfg *config.Config, optional bool) (*mapping.Mapping, error) {
	blueprint, _, err := ReadBlueprint(cfg.Mapping)
	if err != nil {
		return nil, err
	}
	o := MappingOptions(cfg)
	o.AllOptional = optional
	return blueprint.Compile(o)
}

// RowColumns returns the columns that the rows of a mapping carry.
func RowColumns(m *mapping.Mapping) []zerobus.Column {
	var columns []zerobus.Column
	for i, col := range m.Columns() {
		columns = append(columns, zerobus.Column{Name: col.Name, Type: col.Type, NotNull: col.NotNull, Position: i})
	}
	return columns
}

// ReadColumns returns the table's columns. Where the principal may not see them,
// they are nil and unreadable is the reason: the blueprint alone decides then.
func ReadColumns(ctx context.Context, client *zerobus.Client) (columns []zerobus.Column, unreadable *zerobus.ColumnsUnreadable, err error) {
	columns, err = client.Columns(ctx)
	if errors.As(err, &unreadable) {
		return nil, unreadable, nil
	}
	return columns, nil, err
}

// Current returns what rows are made by; nil before SetTable.
func (s *Schema) Current() *Compiled { return s.current.Load() }

// Digest returns the digest of the blueprint's text; empty for the built-in one.
func (s *Schema) Digest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.digest
}

// SetTable compiles the blueprint for the columns that were just read, nil if
// they cannot be read, and has rows made by it.
func (s *Schema) SetTable(clusterID string, columns []zerobus.Column) (*mapping.Mapping, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.in
	next.clusterID, next.columns, next.tableRead = clusterID, columns, true
	return s.set(next)
}

// ReadTable reads the table's columns, compiles the blueprint for them and has rows
// made by it. It does not check that rows may be written. Call DecideFirst before.
func (s *Schema) ReadTable(ctx context.Context, clusterID string) error {
	columns, _, err := ReadColumns(ctx, s.client)
	if err != nil {
		return err
	}
	_, err = s.SetTable(clusterID, columns)
	return err
}

// DecideFirst finds the transport in half of the time until ctx's deadline. Call it before
// ReadColumns where rows are only shown or compared: their form depends on the transport.
func DecideFirst(ctx context.Context, client *zerobus.Client) error {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(ctx, time.Now().Add(time.Until(end)/2))
	defer cancel()
	if err := client.Decide(ctx); err != nil {
		return fmt.Errorf("the form of the rows is not known, JSON is assumed: %w", err)
	}
	return nil
}

// set is the one way to change what rows are made by. On an error nothing has
// changed. Called with the lock.
func (s *Schema) set(next inputs) (*mapping.Mapping, error) {
	m, err := s.compile(next)
	if err != nil {
		return nil, err
	}
	s.in, s.compiledFor = next, next.columns
	s.current.Store(&Compiled{m, s.client.SetRowColumns(RowColumns(m))})
	return m, nil
}

func (s *Schema) compile(in inputs) (*mapping.Mapping, error) {
	o := s.options
	o.ClusterID = in.clusterID
	return Compile(s.client, o, in.blueprint, in.columns)
}

// Compile compiles a blueprint for the table's columns, nil if they are not known.
// The error is a *BlueprintMismatch where the two do not fit.
func Compile(client *zerobus.Client, o mapping.Options, blueprint *mapping.Blueprint, columns []zerobus.Column) (*mapping.Mapping, error) {
	encoding, err := client.Encoding(columns)
	if err != nil {
		return nil, err
	}
	o.TableName, o.Format = client.Table().Quoted(), encoding.Format
	for _, col := range columns {
		o.Table = append(o.Table, mapping.Column{Name: col.Name, Type: col.Type, NotNull: col.NotNull, Number: encoding.Numbers[col.Name]})
	}
	m, err := blueprint.Compile(o)
	if err != nil {
		return nil, &BlueprintMismatch{err}
	}
	return m, nil
}

// CompileWithoutTable compiles the blueprint alone and changes nothing.
func (s *Schema) CompileWithoutTable(clusterID string) (*mapping.Mapping, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compile(inputs{blueprint: s.in.blueprint, clusterID: clusterID})
}

// OnColumnsChanged compiles the blueprint for columns that have changed: an
// optional column that was added is filled from now on, one that was dropped is
// left out. With the same columns it compiles for a transport that has changed. mismatch is the difference between the columns and the rows. Columns
// that the blueprint does not fit are logged, and the compiled blueprint stays: the
// service decides whether it takes its rows.
//
// A column whose new type takes other values is such a case. The blueprint could
// follow the type, but then every event might be rejected: a STRING is not a
// BIGINT. The operator has to decide that.
func (s *Schema) OnColumnsChanged(columns []zerobus.Column, mismatch error) {
	const unfit = "table columns changed and the blueprint does not fit them; rows have the old columns"
	s.mu.Lock()
	defer s.mu.Unlock()
	if mismatch != nil && slices.Equal(columns, s.compiledFor) {
		return // a reload has read these columns first
	}
	before := s.compiledFor
	s.in.columns = columns
	var how *zerobus.SchemaError
	if errors.As(mismatch, &how) && len(how.Changed) > 0 {
		s.log.Error(unfit, zap.Error(how))
		return
	}
	rerouted := mismatch == nil && slices.Equal(columns, before)
	m, err := s.set(s.in)
	switch {
	case err != nil && rerouted:
		s.log.Error("transport changed and rows cannot be encoded for it", zap.Error(err))
		return
	case err != nil:
		s.log.Error(unfit, zap.Error(err))
		return
	case rerouted:
		s.log.Info("transport changed; rows are encoded for it from the next batch on")
		return
	}
	s.log.Info("table columns changed; rows have the new columns from the next batch on", zap.Strings("omitted", m.OmittedColumns()))
}

// rereadTimeout bounds reading the table's columns for a blueprint that does not
// fit them.
const rereadTimeout = 10 * time.Second

// SetBlueprint replaces the blueprint if the new one fits the table as last read;
// digest is of its text. With reread, a table that it does not fit is read
// again: the column it needs may just have been added.
func (s *Schema) SetBlueprint(ctx context.Context, blueprint *mapping.Blueprint, digest string, reread bool) error {
	err := s.trySetBlueprint(blueprint, digest)
	var bad *BlueprintMismatch
	if !reread || !errors.As(err, &bad) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rereadTimeout)
	defer cancel()
	columns, _, rerr := ReadColumns(ctx, s.client)
	if rerr != nil || columns == nil {
		return err
	}
	s.mu.Lock()
	s.in.columns = columns
	s.mu.Unlock()
	return s.trySetBlueprint(blueprint, digest)
}

func (s *Schema) trySetBlueprint(blueprint *mapping.Blueprint, digest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.in
	next.blueprint, next.digest = blueprint, digest
	if !next.tableRead { // SetTable compiles it
		if _, err := blueprint.Compile(s.options); err != nil {
			return err
		}
		s.in = next
		return nil
	}
	m, err := s.set(next)
	if err != nil {
		return err
	}
	s.log.Info("blueprint changed; it is used from the next batch on", zap.Strings("omitted", m.OmittedColumns()))
	return nil
}
