package gen

import (
	"fmt"
	"math/rand/v2"
)

// Line is a row of product_lines.
type Line struct {
	Name, Description string
	prefix            string
	base              Hundredths // typical list price in US dollars
	nouns, makers     []string
}

// Product is a row of products. Prices are in US dollars.
type Product struct {
	Code, Name, Line, Scale, Vendor, Description string
	Stock                                        int
	Buy, MSRP                                    Hundredths
	Hidden                                       bool
	// Cluster is the affinity cluster: products of one cluster are bought
	// together far more often than chance. It is not stored in the source.
	Cluster int
}

const (
	productCount = 180
	clusterSize  = 6
	// Clusters is the number of affinity clusters.
	Clusters = productCount / clusterSize
)

// Lines returns the store's product lines.
func Lines() []Line {
	return []Line{
		{"Steam Railways", "Locomotives, wagons and stations from the age of steam, ready to run.", "STM", 89_00,
			words("Tank_Engine Pacific_Locomotive Mail_Coach Coal_Wagon Signal_Box Branch_Station Snow_Plough Turntable"), words("Cinderford Ravenglass Altona Sierra")},
		{"Tall Ships", "Plank-on-frame sailing ships with rigging plans and cast fittings.", "SHP", 119_00,
			words("Clipper Brigantine Barque Cutter Schooner Whaler Galleon Lugger"), words("Morning_Star Halcyon Albatross Grey_Heron")},
		{"Trams and Trolleys", "Street railways of the world, with overhead wire sets and shelters.", "TRM", 64_00,
			words("Bogie_Tram Trolleybus Horse_Tram Cable_Car Depot_Kit Wire_Set Works_Car Articulated_Tram"), words("Lisbon Melbourne Zürich Kagoshima")},
		{"Airships and Gliders", "Balsa, tissue and patience: free flight and display models.", "AIR", 49_00,
			words("Rigid_Airship Sailplane Biplane_Glider Towline_Kit Balloon_Basket Hangar Winch Kite"), words("Zephyr Thermal Skylark Nimbus")},
		{"Farm Machinery", "Tractors, threshers and implements in pressed tin and die-cast.", "FRM", 38_00,
			words("Tractor Threshing_Machine Hay_Rake Steam_Plough Grain_Elevator Milk_Float Seed_Drill Baler"), words("Oakfield Prairie Longacre Willow")},
		{"Rockets and Probes", "Launch vehicles, landers and probes with decal sheets.", "RKT", 72_00,
			words("Sounding_Rocket Orbiter Lander Rover Launch_Tower Space_Telescope Capsule Crawler"), words("Perihelion Corvus Meridian Far_Side")},
		{"Mills and Bridges", "Working water mills, windmills and bridges: the architecture of work.", "MIL", 56_00,
			words("Water_Mill Windmill Trestle_Bridge Lock_Gate Swing_Bridge Saw_Mill Aqueduct Weir"), words("Lower_Ford Kinderdijk Tamar Stone_Arch")},
		{"Racing Bicycles", "Hand-brazed miniature bicycles with turning cranks and real spokes.", "CYC", 29_00,
			words("Track_Bicycle Penny_Farthing Tandem Road_Racer Time_Trial_Bike Cargo_Bike Rollers_Set Team_Car"), words("Campione Randonneur Ventoux Keirin")},
	}
}

// catalogue returns the products, sorted by line as in Lines.
func catalogue(r *rand.Rand) []Product {
	lines := Lines()
	scales := words("1:12 1:24 1:43 1:72 1:87 1:160 1:200")
	vendors := []string{
		"Brass & Beech Works", "Copperline Studio", "Fjord Miniatures", "Gauge Nine", "Hinterland Kits", "Kanda Precision",
		"Lantern Street Models", "Old Quay Foundry", "Pepperbox Toys", "Second Shift Models", "Tinsmith Row", "Vale of Tin",
	}
	list := make([]Product, 0, productCount)
	for li, line := range lines {
		count := productCount / len(lines)
		if li < productCount%len(lines) {
			count++
		}
		for n := range count {
			noun, maker := spaced(line.nouns[n%len(line.nouns)]), spaced(line.makers[(n/len(line.nouns)+n)%len(line.makers)])
			year := 1850 + r.IntN(110)
			if line.prefix == "RKT" {
				year += 105
			}
			p := Product{
				Code: fmt.Sprintf("%s-%03d", line.prefix, n+1),
				Name: fmt.Sprintf("%s %s %d", maker, noun, year), Line: line.Name,
				Scale: pick(r, scales), Vendor: pick(r, vendors),
				Stock: 400 + r.IntN(4000), Cluster: clusterOf(len(list)),
			}
			p.MSRP = Hundredths(float64(line.base)*(0.5+1.6*r.Float64()))/100*100 + 99
			p.Buy = Hundredths(float64(p.MSRP) * (0.42 + 0.2*r.Float64()))
			p.Description = fmt.Sprintf("%s in %s scale by %s. %s", p.Name, p.Scale, p.Vendor, pick(r, []string{
				"Comes with a display stand and a numbered certificate.", "Kit with step by step plans; glue and paint not included.",
				"Ready built, hand painted, with working parts.", "A limited run for collectors, boxed."}))
			list = append(list, p)
		}
	}
	for range 3 { // a store has a few products that nobody may see
		list[r.IntN(len(list))].Hidden = true
	}
	return list
}

func spaced(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == '_' {
			b[i] = ' '
		}
	}
	return string(b)
}

// clusterOf puts neighbours in the catalogue into one cluster, but sends the last
// of each six to a cluster elsewhere, so that affinities cross product lines.
func clusterOf(index int) int {
	c := index / clusterSize
	if index%clusterSize == clusterSize-1 {
		c = (c + 7) % Clusters
	}
	return c
}

// Catalogue returns the products of the store made from seed.
func Catalogue(seed uint64) []Product {
	return catalogue(newRand(seed, streamCatalogue))
}

// Taste returns the three affinity clusters a customer likes best, the favourite
// first. It depends only on the customer's number.
func Taste(customer int) []int {
	r := rand.New(rand.NewPCG(uint64(customer), 0xA5A5))
	return r.Perm(Clusters)[:3]
}
