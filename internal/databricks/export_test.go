package databricks

import "encoding/json"

func DecodeEffective(body []byte, principal string) []Privilege {
	var page effectivePage
	_ = json.Unmarshal(body, &page)
	return page.of(principal)
}

func DecodeSecurable(body []byte) Securable {
	var doc securableDocument
	_ = json.Unmarshal(body, &doc)
	return doc.securable()
}
