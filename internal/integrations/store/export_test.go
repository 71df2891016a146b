package store

import "time"

// BeforeCommit sets what is called between produce and commit of each attempt.
func (s *Store) BeforeCommit(f func()) { s.beforeCommit = f }

// Pause sets the pause before each further try.
func (s *Store) Pause(f func(try int) time.Duration) { s.pause = f }

// ParseRecord is parseRecord.
var ParseRecord = parseRecord
