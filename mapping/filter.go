package mapping

import "errors"

// keep evaluates a filter on the event just scanned.
func (x *boundExpression) keep(m *Mapper) (bool, error) {
	out, err := x.run(m)
	if err != nil {
		return false, err
	}
	keep, ok := out.(bool)
	if !ok {
		return false, errors.New("the expression gives neither true nor false")
	}
	return keep, nil
}
