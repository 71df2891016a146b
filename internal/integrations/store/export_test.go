package store

import "time"

// BeforeCommit sets what is called between produce and commit of each attempt.
func (s *Store) BeforeCommit(f func(producerID int64, epoch int16)) { s.beforeCommit = f }

// Pause sets the pause before each further try.
func (s *Store) Pause(f func(try int) time.Duration) { s.pause = f }

// PauseFunc returns the pause in force.
func (s *Store) PauseFunc() func(try int) time.Duration { return s.pause }

// ParseRecord is parseRecord.
var ParseRecord = parseRecord
