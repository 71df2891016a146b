package traffic

import (
	"strconv"
	"time"
)

// field names a value that differs between events.
type field byte

const (
	nothing field = iota
	fieldID
	fieldUser // a JSON value: string or null
	fieldAnon
	fieldTime // a JSON value: string or number
	fieldSent
	fieldReceived
	fieldIP
	fieldAgent
	fieldLocale
	fieldTimezone
	fieldURL
	fieldReferrer
	fieldTitle
	fieldCategory
	fieldSKU
	fieldPrice
	fieldCurrency
	fieldQuantity
	fieldCount
	fieldQuery
	fieldCampaign
	fieldConsent
	fieldSession
	fieldCity
)

var fieldNames = map[string]field{
	"id": fieldID, "user": fieldUser, "anon": fieldAnon, "time": fieldTime, "sent": fieldSent, "received": fieldReceived, "ip": fieldIP, "agent": fieldAgent,
	"locale": fieldLocale, "timezone": fieldTimezone, "url": fieldURL, "referrer": fieldReferrer, "title": fieldTitle, "category": fieldCategory,
	"sku": fieldSKU, "price": fieldPrice, "currency": fieldCurrency, "quantity": fieldQuantity, "count": fieldCount, "query": fieldQuery,
	"campaign": fieldCampaign, "consent": fieldConsent, "session": fieldSession, "city": fieldCity,
}

// Values as they stand in JSON text. Some carry escapes and text beyond ASCII,
// since real events do.
var (
	agents = [...]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:135.0) Gecko/20100101 Firefox/135.0",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Safari/605.1.15",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Mobile/15E148 Safari/604.1",
	}
	places = [...]struct{ locale, timezone, city, currency string }{
		{"en-GB", "Europe/London", "London", "GBP"}, {"de-DE", "Europe/Berlin", "K\u00f6ln", "EUR"}, {"fr-FR", "Europe/Paris", "Saint-\\u00c9tienne", "EUR"},
		{"en-US", "America/Chicago", "Chicago", "USD"}, {"ja-JP", "Asia/Tokyo", "\u6771\u4eac", "JPY"}, {"pt-BR", "America/Sao_Paulo", "S\u00e3o Paulo", "BRL"},
	}
	products = [...]struct{ sku, title, category string }{
		{"MUG-1", "Mug, white", "mugs"}, {"OOL-250", "Oolong 250 g", "tea"}, {"POT-07", "Teapot \\\"Kyoto\\\"", "pots"}, {"DAR-100", "Darjeeling First Flush", "tea"},
		{"CAF-01", "Caf\u00e9 blend", "coffee"}, {"FIL-20", "Paper filters 1\\/20", "supplies"}, {"SEN-50", "Sencha \u714e\u8336", "tea"}, {"SET-3", "Gift set \\ud83c\\udf81", "gifts"},
	}
	queries   = [...]string{"oolong", "green tea", "mug 0.3l", "caf\u00e9", "th\\u00e9 vert", "gift <20", "\u62b9\u8336"}
	referrers = [...]string{"", "https://search.example/?q=tea", "https://news.example/2026/03/best-teapots", "https://www.teashop.example/"}
	campaigns = [...]string{"newsletter", "search", "social", "partner"}
)

// visitors is how many people are in the shop; their events share a Kafka key.
const visitors = 20_000

// fields is what one event is about. Visitors keep their place and browser.
type fields struct {
	id      [idLen]byte
	badTime bool
	millis  int64  // event time since the epoch
	visitor uint64 // 0 to visitors-1
	person  uint64 // visitor, mixed
	product int
	luck    uint64

	second int64 // the one that date spells
	date   [len("2006-01-02T15:04:05")]byte
}

func (f *fields) begin(r *source, millis int64) {
	f.badTime = false
	f.millis = millis
	f.visitor = uint64(r.below(visitors))
	f.person = mix(f.visitor)
	f.product = r.below(len(products))
	f.luck = r.next()
}

func (f *fields) appendAnonymousID(dst []byte) []byte {
	dst = append(dst, "anon_"...)
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[f.person>>shift&15])
	}
	return dst
}

func (f *fields) append(dst []byte, which field) []byte {
	place := &places[f.person%uint64(len(places))]
	product := &products[f.product]
	switch which {
	case fieldID:
		return append(dst, f.id[:]...)
	case fieldUser:
		if f.person>>8%3 == 0 { // a third has not logged in
			return append(dst, "null"...)
		}
		return append(strconv.AppendUint(append(dst, `"cust-`...), 10_000+f.visitor, 10), '"')
	case fieldAnon:
		return f.appendAnonymousID(dst)
	case fieldTime:
		return f.appendTime(dst)
	case fieldSent:
		return f.appendRFC3339(dst, f.millis+40)
	case fieldReceived:
		return f.appendRFC3339(dst, f.millis+40+int64(f.luck>>16&127))
	case fieldIP:
		if f.person>>16%4 == 0 {
			return strconv.AppendUint(append(dst, "2001:db8::"...), f.visitor&0x0fff, 16)
		}
		return strconv.AppendUint(append(dst, "198.51.100."...), f.person>>24&255, 10)
	case fieldAgent:
		return append(dst, agents[f.person>>32%uint64(len(agents))]...)
	case fieldLocale:
		return append(dst, place.locale...)
	case fieldTimezone:
		return append(dst, place.timezone...)
	case fieldCity:
		return append(dst, place.city...)
	case fieldCurrency:
		return append(dst, place.currency...)
	case fieldURL:
		return append(append(append(dst, "https://www.teashop.example/p/"...), product.sku...), "?ref=list&utm_campaign=spring"...)
	case fieldReferrer:
		return append(dst, referrers[f.luck%uint64(len(referrers))]...)
	case fieldTitle:
		return append(dst, product.title...)
	case fieldCategory:
		return append(dst, product.category...)
	case fieldSKU:
		return append(dst, product.sku...)
	case fieldPrice:
		dst = strconv.AppendUint(dst, 1+f.luck>>8&63, 10)
		return append(dst, '.', '0'+byte(f.luck>>14&7), '5')
	case fieldQuantity:
		return append(dst, '1'+byte(f.luck>>20&7))
	case fieldCount:
		return strconv.AppendUint(dst, f.luck>>24&0xfffff, 10)
	case fieldQuery:
		return append(dst, queries[f.luck>>4%uint64(len(queries))]...)
	case fieldCampaign:
		return append(dst, campaigns[f.person>>40%uint64(len(campaigns))]...)
	case fieldConsent:
		return strconv.AppendBool(dst, f.person>>44%8 != 0)
	case fieldSession:
		return strconv.AppendInt(dst, f.millis-int64(f.person>>48&0xffff), 10)
	}
	return dst
}

// appendTime appends the event's time in one of the forms Signal's sources
// write, most often RFC 3339 with milliseconds.
func (f *fields) appendTime(dst []byte) []byte {
	if f.badTime {
		return append(dst, `"not a time"`...)
	}
	switch f.luck >> 50 & 15 {
	case 0: // the pixel's
		return strconv.AppendInt(dst, f.millis, 10)
	case 1: // a phone's, two hours to the east
		dst = f.appendRFC3339(append(dst, '"'), f.millis+2*3600*1000)
		return append(dst[:len(dst)-1], `+02:00"`...)
	case 2: // a server's, to the microsecond
		dst = f.appendRFC3339(append(dst, '"'), f.millis)
		return append(dst[:len(dst)-1], `250Z"`...)
	default:
		return append(f.appendRFC3339(append(dst, '"'), f.millis), '"')
	}
}

// appendRFC3339 appends a time in UTC with milliseconds. Neighbouring events
// share their second, so its spelling is kept.
func (f *fields) appendRFC3339(dst []byte, millis int64) []byte {
	if second := millis / 1000; second != f.second {
		f.second = second
		time.Unix(second, 0).UTC().AppendFormat(f.date[:0], "2006-01-02T15:04:05")
	}
	dst = append(dst, f.date[:]...)
	ms := millis % 1000
	return append(dst, '.', '0'+byte(ms/100), '0'+byte(ms/10%10), '0'+byte(ms%10), 'Z')
}
