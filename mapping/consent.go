package mapping

import "slices"

// consentPaths are the nodes where an event may speak of one category of consent.
type consentPaths struct {
	// whole speak of all categories at once where they hold no object, as in
	// "consent": "denied".
	whole []int32
	// category speak of this one.
	category []int32
}

// compileConsent finds the forms of consent met in the field: below context or
// at the top, by category, or below Segment's categoryPreferences.
func (c *compiler) compileConsent() {
	for _, category := range c.o.RequireConsent {
		var p consentPaths
		for _, at := range [][]step{{{key: "context"}, {key: "consent"}}, {{key: "consent"}}} {
			for _, holder := range [][]step{at, slices.Concat(at, []step{{key: "category_preferences"}})} {
				p.whole = append(p.whole, c.ownSlots(holder)...)
				p.category = append(p.category, c.ownSlots(slices.Concat(holder, []step{{key: category}}))...)
			}
		}
		c.m.consent = append(c.m.consent, p)
	}
}

// statement is what an object says about a category of consent.
type statement uint8

const (
	nothing statement = iota
	granted
	denied
)

// consents reports whether every required category of consent is granted: a
// denial counts wherever it stands, in the event or around it.
func (m *Mapper) consents() bool {
	if len(m.m.consent) == 0 {
		return true
	}
	if m.env != nil && m.env.denied {
		return false
	}
	for i := range m.m.consent {
		switch m.consent(&m.m.consent[i]) {
		case denied:
			return false
		case nothing:
			if m.m.opts.OnMissingConsent == "drop" && (m.env == nil || !m.env.granted[i]) {
				return false
			}
		}
	}
	return true
}

// consent returns what the object just scanned says about a category.
func (m *Mapper) consent(p *consentPaths) statement {
	said := nothing
	for _, id := range p.category {
		said = max(said, m.yes(m.s.vals[id]))
	}
	for _, id := range p.whole {
		if v := m.s.vals[id]; v.kind != object {
			said = max(said, m.yes(v))
		}
	}
	return said
}

// yes reads a value as a yes or a no. Whatever cannot be read as a yes is a no.
func (m *Mapper) yes(v span) statement {
	switch v.kind {
	case absent, null:
		return nothing
	case trueLit:
		return granted
	case str:
		if text := m.s.b[v.start+1 : v.end-1]; equalFold(text, "true") || equalFold(text, "granted") {
			return granted
		}
	}
	return denied
}
