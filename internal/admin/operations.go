package admin

import (
	"context"

	"github.com/datafly/bridge/internal/pipeline"
)

// Operations are what the API does with Kafka and the table beside installing and
// changing integrations. An integration is named by its slug. Errors are a
// *pipeline.Refused, that of the context, or say what does not answer and end with the
// remedy. The methods are safe for concurrent use.
type Operations interface {
	// Replay sets the offsets of an integration's group; a dry run unless r.Execute.
	Replay(ctx context.Context, slug string, r pipeline.ReplayRequest) (pipeline.ReplayReport, error)
	// DeadLetters groups the unresolved dead letters that f selects.
	DeadLetters(ctx context.Context, slug string, f pipeline.DeadLetterFilter) (pipeline.DeadLetterGroups, error)
	// Redrive maps dead letters again and writes their rows; a dry run unless r.Execute.
	Redrive(ctx context.Context, slug string, r pipeline.RedriveRequest) (pipeline.RedriveReport, error)
	// Topics returns the topics that an integration can read, in order: no internal ones,
	// none of the store, and no dead-letter topics.
	Topics(ctx context.Context) ([]pipeline.Topic, error)
	// ValidateBlueprint compiles a blueprint. Mistakes in it are in the report.
	ValidateBlueprint(ctx context.Context, r pipeline.BlueprintRequest) (pipeline.BlueprintReport, error)
	// TryBlueprint maps one event with a blueprint.
	TryBlueprint(ctx context.Context, r pipeline.TryRequest) (pipeline.TryReport, error)
	// RecentEvents returns up to limit of the newest events that an integration reads.
	RecentEvents(ctx context.Context, slug string, limit int) ([]pipeline.RecentEvent, error)
}
