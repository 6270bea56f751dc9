package gen

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"unicode"
)

// Office is a row of offices.
type Office struct {
	Code, City, Phone, Address1, Address2, State, Country, Postal, Territory string
}

// Employee is a row of employees. ReportsTo 0 means nobody.
type Employee struct {
	Number                 int
	Last, First, Extension string
	Email, Office, Title   string
	ReportsTo              int
}

// Customer is a row of customers. SalesRep 0 means nobody.
type Customer struct {
	Number                           int
	Name, ContactLast, ContactFirst  string
	Phone, Email, Address1, Address2 string
	City, State, Postal, Country     string
	SalesRep                         int
	CreditLimit                      Hundredths
}

// GuestNumber is the customer under which the storefront books orders of
// visitors who have not signed in.
const GuestNumber = 1000

// firstCustomer is the number of the first generated customer.
const firstCustomer = GuestNumber + 1

// Offices returns the store's seven offices.
func Offices() []Office {
	return []Office{
		{"10", "Portland", "+1 555 0100", "210 Alder Quay", "Floor 3", "OR", "USA", "97204", "NA"},
		{"20", "Toronto", "+1 555 0199", "48 Harbour Lane", "", "ON", "Canada", "M5V 2T6", "NA"},
		{"30", "Leeds", "+44 1632 960001", "7 Weaver's Yard", "", "", "UK", "LS1 4AP", "EMEA"},
		{"40", "Lyon", "+33 1 99 00 10 20", "15 quai des Tisserands", "", "", "France", "69002", "EMEA"},
		{"50", "Osaka", "+81 6 0000 0101", "3-2 Kawabata", "Kita-ku", "Osaka", "Japan", "530-0001", "Japan"},
		{"60", "Melbourne", "+61 3 7010 0101", "90 Millrace Street", "Level 2", "VIC", "Australia", "3000", "APAC"},
		{"70", "São Paulo", "+55 11 0000 0101", "Rua das Oficinas 321", "", "SP", "Brazil", "01310-100", "LATAM"},
	}
}

func names(p namePool) (first, last []string) {
	switch p {
	case latin:
		return words("Inès Lucía Marta Chiara Beatriz Renata Elisa Noemi Hugo Mateo Bruno Rafael Tiago Luca Andrés Émile"),
			words("Almeida Castaño Duarte Ferrer Gallo Lefort Moreau Navarro Oliveira Pascal Quiroga Ribeiro Sforza Tessier Varela Zanetti")
	case central:
		return words("Anke Greta Katrin Lotte Marieke Hanna Zofia Jana Dirk Jonas Lars Matthias Piotr Ruben Stefan Tomasz"),
			words("Achterberg Brandt Dekker Engel Fischer Groen Hartmann Jansen Kowalski Lindner Meijer Nowak Richter Steiner Vogel Zimmer")
	case nordic:
		return words("Astrid Ebba Freja Ingrid Linnea Sigrid Tuva Ylva Anders Eskil Gustav Henrik Leif Magnus Sven Tor"),
			words("Aas Bakken Dahl Ekström Forsberg Hagen Holm Isaksson Lind Lunde Nyberg Ottesen Sandvik Strand Vik Öberg")
	case japanese:
		return words("Akari Emi Haruka Kaori Mai Nozomi Rin Yui Daichi Haruto Kenta Makoto Naoki Ren Shota Takumi"),
			words("Aoki Endo Fujii Hayashi Ishida Kondo Maeda Mori Nakano Ogawa Sakai Shibata Taniguchi Ueda Yamashita Yokota")
	case indian:
		return words("Aditi Divya Isha Kavya Meera Nandini Priya Sunita Arjun Dev Farhan Karan Nikhil Rohan Siddharth Vikram"),
			words("Banerjee Chandra Desai Fernandes Gupta Iyer Joshi Kulkarni Lim Menon Nair Patil Rao Shetty Tan Verma")
	default:
		return words("Amelia Bridget Clara Edith Fiona Grace Hazel Imogen Alistair Callum Desmond Edgar Felix Graham Irving Owen"),
			words("Ashdown Barlow Carver Draper Ellwood Fairley Granger Hewitt Kendrick Loxley Marlowe Ormond Prescott Radley Thackeray Winslow")
	}
}

func words(s string) []string { return strings.Fields(s) }

// employees returns the staff: a president, a vice president for sales, a
// manager for each territory and the sales representatives of each office.
func employees(r *rand.Rand, offices []Office) []Employee {
	var list []Employee
	add := func(office Office, title string, reports int) int {
		m, _ := MarketOf(Markets(), office.Country)
		first, last := names(m.names)
		e := Employee{
			Number: 100 + len(list)*7, First: pick(r, first), Last: pick(r, last),
			Extension: fmt.Sprintf("x%d", 2000+r.IntN(7000)), Office: office.Code,
			Title: title, ReportsTo: reports,
		}
		e.Email = mailbox(e.First, e.Last, e.Number, "staff.example.com")
		list = append(list, e)
		return e.Number
	}
	president := add(offices[0], "President", 0)
	sales := add(offices[0], "VP Sales", president)
	for _, o := range offices {
		manager := add(o, "Sales Manager ("+o.Territory+")", sales)
		representatives := 2
		if o.Code == "10" || o.Code == "40" {
			representatives = 3
		}
		for range representatives {
			add(o, "Sales Rep", manager)
		}
	}
	return list
}

// customers returns n customers spread over the markets by weight, and before
// them the guest.
func customers(r *rand.Rand, n int, markets []Market, staff []Employee) []Customer {
	reps := RepsByOffice(staff)
	list := make([]Customer, 0, n+1)
	list = append(list, Customer{
		Number: GuestNumber, Name: "Guest checkout", ContactLast: "Guest", ContactFirst: "Visitor",
		Phone: "+1 555 0000", Email: "guest@customers.example.com", Address1: "210 Alder Quay",
		City: "Portland", State: "OR", Postal: "97204", Country: "USA",
	})
	for i := range n {
		c := NewCustomer(r, PickMarket(r, markets), firstCustomer+i)
		m, _ := MarketOf(markets, c.Country)
		if r.Float64() < 0.93 { // some have nobody: the column is nullable for a reason
			c.SalesRep = pick(r, reps[m.Office])
		}
		list = append(list, c)
	}
	return list
}

// RepsByOffice returns the numbers of the sales representatives of each office.
func RepsByOffice(staff []Employee) map[string][]int {
	reps := map[string][]int{}
	for _, e := range staff {
		if e.Title == "Sales Rep" {
			reps[e.Office] = append(reps[e.Office], e.Number)
		}
	}
	return reps
}

// PickMarket draws a market by its weight.
func PickMarket(r *rand.Rand, markets []Market) Market {
	var total float64
	for _, m := range markets {
		total += m.Weight
	}
	x := r.Float64() * total
	for _, m := range markets {
		if x -= m.Weight; x < 0 {
			return m
		}
	}
	return markets[len(markets)-1]
}

// NewCustomer invents a customer of the market. The number only serves to make
// the mail address unique; the sales representative is left open.
func NewCustomer(r *rand.Rand, m Market, number int) Customer {
	firsts, lasts := names(m.names)
	first, last, city := pick(r, firsts), pick(r, lasts), pick(r, m.Cities)
	shop := []string{last + " Models", city.Name + " Hobby House", last + " & " + pick(r, lasts), "The " + city.Name + " Workbench", first + " " + last}
	streets := words("Mill Station Orchard Canal Foundry Chapel Quarry Lantern Meadow Anchor")
	c := Customer{
		Number: number, Name: pick(r, shop), ContactFirst: first, ContactLast: last,
		Phone:    fmt.Sprintf("%s%04d", m.Dial, r.IntN(10000)),
		Email:    mailbox(first, last, number, "customers.example.com"),
		Address1: fmt.Sprintf("%d %s Street", 1+r.IntN(240), pick(r, streets)),
		City:     city.Name, State: city.State, Postal: city.Postal, Country: m.Country,
		CreditLimit: Hundredths(r.IntN(1200)) * 100_00,
	}
	if r.Float64() < 0.2 {
		c.Address2 = fmt.Sprintf("Unit %d", 1+r.IntN(40))
	}
	return c
}

// mailbox makes an address in a reserved domain out of a name, ASCII letters only.
func mailbox(first, last string, number int, domain string) string {
	plain := strings.Map(func(c rune) rune {
		if c > unicode.MaxASCII || !unicode.IsLetter(c) {
			return -1
		}
		return unicode.ToLower(c)
	}, first+last)
	return fmt.Sprintf("%s.%d@%s", plain, number, domain)
}
