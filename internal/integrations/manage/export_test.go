package manage

import "context"

// Validate returns the integration that a request would install, without testing its
// connections.
func (m *Manager) Validate(ctx context.Context, r Request) (Integration, error) {
	d := m.o.Files()
	dr, err := m.draft(ctx, d, &r)
	if err != nil {
		return Integration{}, err
	}
	if err := m.seal(&dr.record, "store", dr.given); err != nil {
		return Integration{}, err
	}
	return m.view(ctx, d, &dr.record, "store", nil), nil
}

// BoundPreparation sets what ends a preparation.
func BoundPreparation(m *Manager, bounded func(context.Context) (context.Context, context.CancelFunc)) {
	m.bounded = bounded
}
