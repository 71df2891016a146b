// Package store keeps the installed integrations of a deployment in a compacted topic.
//
// A [Store] follows the topic, and changes it by fencing. A writer takes the one
// transactional id of the store, reads the topic to its end and decides. Then it commits
// its records and their audit entries in one transaction. A writer that was overtaken
// cannot commit. See docs/decisions/0007-store.md.
package store

import "time"

// Format is the format of the records that this version writes. It reads those of older
// formats, and keeps what it last knew of a record with a newer one.
const Format = 1

// Record is one installed integration, complete in itself, and the JSON of its record.
// The maps hold keys of a section of the configuration, without the section's name.
// A Record is treated as read-only once it is in a State.
type Record struct {
	Format    int    `json:"format"`
	ID        string `json:"id"`     // int_ and 12 letters and digits
	Slug      string `json:"slug"`   // unique, never changed
	Name      string `json:"name"`   // 1 to 100 characters
	Vendor    string `json:"vendor"` // a key of the catalog
	Variant   string `json:"variant"`
	Enabled   bool   `json:"enabled"`
	Revision  int64  `json:"revision"`            // 1 at install, then one more with each change
	Source    Values `json:"source"`              // of kafka: topics, group, start
	Target    Values `json:"target"`              // of zerobus, without secrets
	Blueprint string `json:"blueprint,omitempty"` // a document; empty: that of the variant
	Mapping   Values `json:"mapping,omitempty"`   // of mapping, without the blueprint
	Rejects   Values `json:"rejects,omitempty"`
	Delivery  Values `json:"delivery,omitempty"` // max_rows, max_bytes

	Secrets map[string]Sealed `json:"secrets,omitempty"` // by key of Target

	DeliveryMode      string   `json:"delivery_mode"`
	ConsentCategories []string `json:"consent_categories,omitempty"`
	Meta              Meta     `json:"meta"`
}

// Values are keys of one section of the configuration.
type Values map[string]any

// Meta is who changed a record, when and why.
type Meta struct {
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	By        string    `json:"by"`
	RequestID string    `json:"request_id"`
	Reason    string    `json:"reason,omitempty"`
}

// Sealed is a secret that only a key of store.keys opens, and only in the record for
// which it was sealed.
type Sealed struct {
	Key         string `json:"key"`         // fingerprint of the key that sealed it
	Data        []byte `json:"data"`        // nonce and ciphertext
	Fingerprint string `json:"fingerprint"` // of the secret under that key: 8 hexadecimal digits
}

// Entry is one entry of the audit log, written in the transaction of the change that it
// describes.
type Entry struct {
	ID           string             `json:"id"`     // log_ and 12 letters and digits
	Action       string             `json:"action"` // integration.installed, integration.updated, ...
	By           string             `json:"user_id"`
	ResourceType string             `json:"resource_type"`
	ResourceID   string             `json:"resource_id"`
	Slug         string             `json:"slug,omitempty"`
	Revision     int64              `json:"revision,omitempty"` // after the change
	Changes      map[string]Changed `json:"changes,omitempty"`  // by dotted field; secrets as fingerprints
	Reason       string             `json:"reason,omitempty"`
	RequestID    string             `json:"request_id"`
	Time         time.Time          `json:"timestamp"`
	// Record is the record after the change with its sealed secrets taken out; nil after
	// a removal.
	Record *Record `json:"record,omitempty"`
}

// Changed is a value before and after a change; nil: none.
type Changed struct {
	Old any `json:"old"`
	New any `json:"new"`
}
