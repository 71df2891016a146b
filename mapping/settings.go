package mapping

import "github.com/datafly/bridge/internal/setting"

// Settings are how one event becomes one row.
type Settings struct {
	// Blueprint is a file that extends or replaces the built-in mapping; empty is the
	// built-in one. Whoever calls Compile reads it.
	Blueprint string `yaml:"blueprint" readable:"the built-in mapping needs no file" live:"true"`
	// BlueprintText is a blueprint itself, in YAML or JSON, in place of a file.
	BlueprintText string `yaml:"blueprint_text" document:"true" live:"true"`
	// Variant is the built-in mapping in use where there is no blueprint: one of
	// Builtins.
	Variant string `yaml:"variant" default:"default" choices:"default,retail" live:"true"`
	// Input is canonical (every event is in Signal's envelope), mapped (every event is
	// a row already), or auto, which decides for each event.
	Input string `yaml:"input" default:"auto" choices:"auto,canonical,mapped"`
	// InvalidUTF8 is reject, or replace: U+FFFD in place of bytes that are no Unicode,
	// so the text in the table is altered.
	InvalidUTF8 string `yaml:"invalid_utf8" default:"reject" choices:"reject,replace"`
	// TimestampFallback is for events without any timestamp: none leaves the column
	// NULL, kafka takes the record's, which is the time of writing to Kafka.
	TimestampFallback string `yaml:"timestamp_fallback" default:"none" choices:"none,kafka"`
	// OnBadTimestamp is for a value that is no time: reject the event, or next, the
	// column's remaining sources, whose time may mean something else.
	OnBadTimestamp string `yaml:"on_bad_timestamp" default:"reject" choices:"reject,next"`
	// RequireConsent lists categories that must all be granted, else the event is
	// filtered.
	RequireConsent []string `yaml:"require_consent" unique:"true"`
	// OnMissingConsent is for an event that does not mention a required category.
	OnMissingConsent string `yaml:"on_missing_consent" default:"allow" choices:"allow,drop" when:"require_consent"`
	// MaxEventsPerRecord caps the events of one record, an array or batch: a record
	// with more is rejected as a whole. Higher: the rows and rejects of one record
	// take more memory. Dead letters number events up to the upper bound.
	MaxEventsPerRecord int `yaml:"max_events_per_record" default:"10000" min:"1" max:"1048576"`
}

// Check implements the rules about where the blueprint comes from.
func (s *Settings) Check(c *setting.Check) {
	const file, text, variant = "mapping.blueprint", "mapping.blueprint_text", "mapping.variant"
	switch {
	case !c.OK(file, text, variant):
	case s.Blueprint != "" && s.BlueprintText != "":
		c.FailValue(text, "", "must not be set together with "+file, "keep one of the two")
	case s.Variant == Builtins()[0]:
	case s.Blueprint != "":
		c.Fail(variant, "has no effect with "+file, "keep one of the two")
	case s.BlueprintText != "":
		c.Fail(variant, "has no effect with "+text, "keep one of the two")
	}
}
