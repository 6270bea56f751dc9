package gen

import "time"

// City is a place customers live in.
type City struct {
	Name, State, Postal string
}

// Market is one country the store sells to.
type Market struct {
	Country   string
	Territory string // NA, EMEA, APAC, Japan or LATAM
	Office    string // code of the office that serves it
	Currency  string // ISO 4217
	// Offset is the market's standard time. Summer time is ignored on purpose:
	// the generator must not depend on the time zone data of the machine.
	Offset time.Duration
	Weight float64 // share of customers, relative
	Dial   string  // telephone prefix
	names  namePool
	Cities []City
}

type namePool int

const (
	anglo namePool = iota
	latin
	central
	nordic
	japanese
	indian
)

func hours(h float64) time.Duration { return time.Duration(h * float64(time.Hour)) }

// Markets returns the countries the store sells to, always in the same order.
func Markets() []Market {
	return append(append(americas(), europe()...), asiaPacific()...)
}

func americas() []Market {
	return []Market{
		{"USA", "NA", "10", "USD", hours(-6), 24, "+1 555 01", anglo, []City{
			{"Portland", "OR", "97204"}, {"Austin", "TX", "78701"}, {"Madison", "WI", "53703"},
			{"Savannah", "GA", "31401"}, {"Boulder", "CO", "80302"}, {"Providence", "RI", "02903"},
			{"Saint Paul", "MN", "55102"}, {"Asheville", "NC", "28801"}}},
		{"Canada", "NA", "20", "CAD", hours(-5), 7, "+1 555 02", anglo, []City{
			{"Toronto", "ON", "M5V 2T6"}, {"Halifax", "NS", "B3J 1S9"}, {"Victoria", "BC", "V8W 1P6"}, {"Quebec", "QC", "G1R 4S7"}}},
		{"Mexico", "LATAM", "70", "MXN", hours(-6), 4, "+52 55 0", latin, []City{
			{"Puebla", "PUE", "72000"}, {"Mérida", "YUC", "97000"}, {"Querétaro", "QRO", "76000"}}},
		{"Brazil", "LATAM", "70", "BRL", hours(-3), 6, "+55 11 0", latin, []City{
			{"São Paulo", "SP", "01310-100"}, {"Curitiba", "PR", "80010-000"}, {"Recife", "PE", "50030-230"}}},
		{"Chile", "LATAM", "70", "CLP", hours(-4), 2, "+56 2 0", latin, []City{
			{"Valparaíso", "VS", "2340000"}, {"Concepción", "BI", "4030000"}}},
	}
}

func europe() []Market {
	return []Market{
		{"UK", "EMEA", "30", "GBP", 0, 9, "+44 1632 9", anglo, []City{
			{"Leeds", "", "LS1 4AP"}, {"Bristol", "", "BS1 5TR"}, {"Norwich", "", "NR2 1RF"}, {"Dundee", "", "DD1 4BG"}}},
		{"Ireland", "EMEA", "30", "EUR", 0, 2, "+353 20 9", anglo, []City{
			{"Galway", "", "H91 E2R8"}, {"Cork", "", "T12 X8N6"}}},
		{"Germany", "EMEA", "40", "EUR", hours(1), 9, "+49 30 2312", central, []City{
			{"Leipzig", "SN", "04109"}, {"Bremen", "HB", "28195"}, {"Freiburg", "BW", "79098"}, {"Kassel", "HE", "34117"}}},
		{"France", "EMEA", "40", "EUR", hours(1), 8, "+33 1 99 0", latin, []City{
			{"Lyon", "", "69002"}, {"Rennes", "", "35000"}, {"Lille", "", "59000"}, {"Grenoble", "", "38000"}}},
		{"Spain", "EMEA", "40", "EUR", hours(1), 4, "+34 910 0", latin, []City{
			{"Bilbao", "", "48001"}, {"Zaragoza", "", "50001"}, {"Málaga", "", "29001"}}},
		{"Italy", "EMEA", "40", "EUR", hours(1), 4, "+39 06 00", latin, []City{
			{"Torino", "TO", "10121"}, {"Trieste", "TS", "34121"}, {"Parma", "PR", "43121"}}},
		{"Netherlands", "EMEA", "40", "EUR", hours(1), 3, "+31 85 0", central, []City{
			{"Utrecht", "", "3511 LX"}, {"Groningen", "", "9712 CP"}}},
		{"Switzerland", "EMEA", "40", "CHF", hours(1), 2, "+41 44 0", central, []City{
			{"Winterthur", "ZH", "8400"}, {"Lugano", "TI", "6900"}}},
		{"Poland", "EMEA", "40", "PLN", hours(1), 2, "+48 12 0", central, []City{
			{"Kraków", "", "31-002"}, {"Gdynia", "", "81-368"}}},
		{"Sweden", "EMEA", "30", "SEK", hours(1), 2, "+46 31 390", nordic, []City{
			{"Uppsala", "", "753 20"}, {"Malmö", "", "211 20"}}},
		{"Norway", "EMEA", "30", "NOK", hours(1), 1.5, "+47 21 0", nordic, []City{
			{"Bergen", "", "5003"}, {"Trondheim", "", "7011"}}},
		{"South Africa", "EMEA", "30", "ZAR", hours(2), 1.5, "+27 21 0", anglo, []City{
			{"Cape Town", "WC", "8001"}, {"Durban", "KZN", "4001"}}},
		{"United Arab Emirates", "EMEA", "30", "AED", hours(4), 1, "+971 4 0", anglo, []City{
			{"Sharjah", "", "00000"}, {"Dubai", "", "00000"}}},
	}
}

func asiaPacific() []Market {
	return []Market{
		{"Japan", "Japan", "50", "JPY", hours(9), 9, "+81 6 0000 ", japanese, []City{
			{"Osaka", "Osaka", "530-0001"}, {"Sapporo", "Hokkaido", "060-0001"}, {"Kanazawa", "Ishikawa", "920-0853"}, {"Fukuoka", "Fukuoka", "810-0001"}}},
		{"Australia", "APAC", "60", "AUD", hours(10), 5, "+61 3 7010 ", anglo, []City{
			{"Melbourne", "VIC", "3000"}, {"Hobart", "TAS", "7000"}, {"Newcastle", "NSW", "2300"}}},
		{"New Zealand", "APAC", "60", "NZD", hours(12), 2, "+64 4 000 ", anglo, []City{
			{"Wellington", "", "6011"}, {"Dunedin", "", "9016"}}},
		{"Singapore", "APAC", "60", "SGD", hours(8), 2, "+65 6000 ", indian, []City{{"Singapore", "", "049213"}}},
		{"India", "APAC", "60", "INR", hours(5.5), 5, "+91 80 000 ", indian, []City{
			{"Pune", "MH", "411001"}, {"Kochi", "KL", "682001"}, {"Mysuru", "KA", "570001"}}},
	}
}

// MarketOf returns the market of a country, and whether the store sells there.
func MarketOf(markets []Market, country string) (Market, bool) {
	for _, m := range markets {
		if m.Country == country {
			return m, true
		}
	}
	return Market{}, false
}
