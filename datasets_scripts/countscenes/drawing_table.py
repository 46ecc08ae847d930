"""
The drawings of `countscenes`: which of OpenMoji's drawings there are, what they are called, and where they lie.

OpenMoji 17.0.0 has 4,495 drawings. Those below were chosen by hand, by these rules: one thing that is counted ("a
cat"), drawn once (no pair of cherries), that has a name one would say; no faces with expressions, people, hands,
flags, arrows, signs, clock faces and other symbols; no second drawing of a thing that is there already (the cat's face
beside the cat); nothing that is recognised by its lines alone: every drawing covers more than a sixth of the circle
around it. Of two names one of which says both (a dog, a poodle) only one is there, or both say what tells them apart
(an orange cat, a black cat).

A line is `CODE|NAME|FAMILY|COLOR|X,Y,RADIUS|X,Y|COVERAGE|COLORS`: the name of the file; what one is called; the
family, where that is not the last word of the name; its colour, which is the mean of the opaque pixels that are not
nearly black (a channel of 64 or more; of all, where these are fewer than a quarter); the circle around the opaque
pixels; the point that marks one; how much of the circle is covered, in per cent; and the one or two colours that one
would name, the larger first: those of 22 per cent or more of its coloured area. That is all that is opaque and not
nearly black, by saturation (below 0.15 white or, of a value up to 0.92, gray) and hue, and what is nearly black and
wider than any outline: black. A few were corrected by hand: the sea below a boat is not its colour, a zebra's stripes
are no wider than outlines, and things of many colours have none. The coordinates are pixels of the drawing at
288 x 288, and pixels are opaque with an opacity of a half or more there.

All drawings are by OpenMoji (https://openmoji.org), the open-source emoji and icon project, under CC BY-SA 4.0.
"""

DRAWING_TABLE = """
# animals
1F400|rat|mouse|a39a9c|145,169,137|157,165|43|gray
1F401|mouse||cbcac9|136,158,120|139,146|47|gray
1F402|ox|cow|a17638|141,151,138|154,147|37|brown
1F403|water buffalo|cow|2b2b2b|143,146,143|150,133|39|black
1F404|cow||bfa279|142,155,134|151,144|39|brown,white
1F9AC|bison|cow|835c33|144,143,123|144,138|52|brown,black
1F405|tiger||d87f42|144,160,132|136,144|38|orange
1F406|leopard|tiger|edb25e|144,160,133|137,148|35|orange
1F407|rabbit||f9f9f9|143,136,134|131,154|40|black,white
1F408|orange cat||eda03c|143,144,150|140,150|30|orange
1F408-200D-2B1B|black cat||282828|144,144,150|140,150|30|black
1F409|dragon||aac231|146,139,126|150,124|39|green
1F40A|crocodile||609e30|145,174,129|128,180|29|green
1F40B|blue whale||6db2dd|139,149,119|143,123|44|blue
E004|orca|whale|282828|153,139,155|150,134|22|black
E006|narwhal|whale|cccbca|142,147,143|127,169|21|gray
E007|beluga|whale|cac9c8|149,171,129|127,170|29|gray
1F42C|dolphin||a3a3a2|151,168,134|162,143|28|gray
1F40C|snail||835c33|145,161,122|145,167|35|brown
1F40D|snake||9bbf32|144,148,131|159,183|32|green
1F40E|horse||996f37|144,153,147|151,153|37|brown
1F410|goat||996f37|141,152,140|145,150|35|brown
1F411|sheep||f3f3f3|143,155,143|150,143|40|white
1F412|monkey||a07538|145,144,157|162,164|29|brown
1F413|rooster||ad723a|144,146,120|145,163|46|brown
1F424|chick||f7e42a|144,135,104|144,148|73|yellow
1F415|dog||eea13d|139,145,142|142,148|40|orange
1F416|pig||faa2bb|142,156,130|148,154|46|pink
1F417|wild boar|pig|69462f|143,147,125|147,136|49|brown,black
1F418|elephant||999998|141,150,134|148,147|51|gray
1F419|octopus||d2362c|146,137,125|143,139|45|red
1F41A|seashell||fba3bc|141,146,89|144,144|50|pink
1F41B|caterpillar||acc432|144,172,128|147,174|39|green
1F41C|ant||69452f|144,162,95|143,174|37|brown
1F41D|bee||c5da89|144,144,133|127,136|36|yellow,blue
1F41E|ladybug|beetle|cf2e27|144,135,123|145,146|46|red,black
1FAB2|green beetle||4c8a50|144,145,117|143,147|33|green
1F41F|blue fish||90d0f2|148,137,121|151,137|49|blue
1F420|tropical fish||9db48d|154,154,131|156,151|41|blue,yellow
1F421|pufferfish|fish|7a5432|139,140,123|139,139|60|brown
E000|goldfish|fish|e8941e|144,144,131|143,144|37|orange
1F422|turtle||78aa30|144,145,142|144,145|41|green
1F426|brown bird||8b6234|141,144,123|148,140|28|brown
1F426-200D-2B1B|gray bird||989897|141,144,123|148,140|28|black,gray
1F426-200D-1F525|phoenix||dd6622|145,147,122|149,146|53|orange
1F427|penguin||fcfcfc|145,140,129|147,147|39|black,white
1F428|koala||9d9d9c|139,145,113|145,145|50|gray
1F42A|camel||ec9d3b|141,150,141|168,140|38|orange
1F438|frog||afca32|143,150,124|144,149|66|green
1F439|hamster||f3bd70|147,143,148|146,143|52|orange,white
1F43A|wolf||989897|140,144,153|140,130|54|black,gray
1F43B|brown bear||755031|144,148,145|144,144|59|brown
1F43C|panda|bear|fbfbfb|143,143,145|144,138|58|white,black
1F43B-200D-2744-FE0F|polar bear||f7f7f7|144,156,129|161,151|44|white
1F981|lion||e5a850|144,152,145|143,148|65|orange
1F98A|fox||e6955e|144,144,150|143,142|54|orange,white
1F984|unicorn||d1d9e4|149,151,155|159,152|39|white,blue
1F993|zebra||f1f1f1|144,156,131|149,147|41|white,black
1F992|giraffe||eea63f|142,150,149|156,154|20|orange
1F98C|deer||a2793e|136,144,142|137,156|36|brown
1F98D|gorilla||40403f|149,150,137|138,155|46|black,gray
1F98F|rhino||999998|144,155,134|157,146|51|gray
1F994|hedgehog||7a6354|146,154,136|154,158|41|brown,gray
1F995|dinosaur||a37838|145,142,159|163,157|22|brown
1F998|kangaroo||9f7437|143,144,147|107,159|22|brown
1F999|llama||9d7337|144,144,136|146,155|34|brown
1F99A|peacock||579242|144,143,109|143,140|80|green
1F99B|hippo||9a9a99|144,144,138|138,143|40|gray
1F99C|red parrot||b6494b|148,135,126|149,129|31|red
E010|blue parrot||b7d6b2|148,149,142|153,135|25|blue,yellow
1F99D|raccoon||a3a3a2|144,144,125|130,146|53|gray
1F9A1|badger||a7a7a6|145,144,132|159,141|45|gray
1F9A2|swan||fbfafa|144,145,125|131,175|45|white
1F9A3|mammoth|elephant|a07942|140,147,143|149,154|37|brown
1F9A4|dodo||9fc9db|144,150,122|147,150|39|blue,gray
1F9A5|sloth||9e988f|144,144,159|159,156|29|gray
1F9A6|otter||724d30|146,144,119|144,168|48|brown
1F9A7|orangutan||de7626|143,146,131|145,151|56|orange
1F9A8|skunk||f6f6f6|143,143,126|163,162|42|black,white
1F9A9|flamingo||f9a3bc|144,151,130|141,139|23|pink
1F9AB|beaver||906735|152,150,112|157,154|54|brown
1F9AD|seal||c2c1c0|141,144,125|136,140|41|gray
1F43F|squirrel||a78047|145,139,138|154,140|56|brown
1F987|bat||2c2c2c|145,150,161|135,131|32|black
1F985|eagle||a47d46|162,144,147|168,141|34|brown
1F986|duck||918036|143,144,128|134,154|46|brown,green
1F989|owl||9a9284|147,143,119|146,136|43|gray
1F983|turkey||ad723a|153,141,118|148,145|54|brown
1F988|shark||9a9a99|146,146,136|156,151|22|gray
1F980|crab||d1362c|143,142,117|144,146|47|red
1F99E|lobster||d74336|144,144,121|143,132|43|red,black
1F990|shrimp||cf362c|156,146,126|170,136|32|red
1F991|squid||eec085|145,146,132|144,141|30|orange,white
1F9AA|oyster||d3bb98|136,150,132|143,152|52|brown,white
1F982|scorpion||cf3e32|142,145,113|142,143|29|red
1F577|spider||999998|144,144,139|145,143|25|gray
1F578|spider web||c9c8c7|144,144,117|143,143|48|gray
1F98B|butterfly||90ccec|144,133,143|143,127|44|blue
1F997|cricket||6aa431|138,186,119|144,193|25|green
1F99F|mosquito||a7a7a6|139,154,108|139,167|32|gray
1FAB0|fly||cbc3c1|144,154,128|143,160|50|gray,black
1FAB1|worm||ed97af|154,137,126|135,140|25|pink
1FAB3|cockroach||7d3432|144,140,122|144,155|27|brown
1FABC|jellyfish||b197c6|144,145,131|144,116|49|purple
1FABF|goose|swan|f9f5f0|145,144,118|139,157|37|white
1FACF|donkey||c7c6c5|144,143,119|148,145|36|gray
1FABD|wing||eeeded|144,144,125|144,146|36|white,gray
1F54A|dove||ececec|145,144,127|153,147|44|white,gray
E009|pigeon|dove|b9b8b8|145,144,127|153,147|44|gray
1FAB6|feather||939dcb|141,147,121|132,146|31|purple,blue
1FAB9|nest||936a36|144,149,106|143,148|72|brown
1F9A0|germ||de4b3c|144,144,99|142,143|53|red
# plants
1F330|chestnut||a3762d|144,143,104|144,136|80|brown,yellow
1F332|fir tree||5b9d31|144,145,121|144,146|41|green
1F333|leafy tree||a1c332|146,144,123|144,113|53|green
1F334|palm tree||78ab31|148,154,126|132,102|29|green
1F384|Christmas tree||9bb231|144,143,131|144,165|39|green
1FABE|bare tree||a17638|138,143,124|141,144|26|brown
1F335|cactus||afc932|143,140,121|144,145|55|green
1F337|tulip||c89f39|146,159,116|153,129|32|orange,green
1F338|cherry blossom||dca29f|140,151,115|139,129|41|pink
1F339|rose||cf6a38|142,146,120|155,120|33|red,green
1F33B|sunflower||d1cd29|149,141,117|151,126|41|yellow
1F33C|daisy|sunflower|d9d42a|130,143,122|141,115|36|yellow
1F490|bouquet||c9a56e|144,146,135|148,90|36|
1FAB7|lotus flower||d19f88|144,144,119|144,146|59|pink,green
1FABB|hyacinth||9b879c|143,152,114|157,125|25|purple
E002|poppy||dc5e44|149,154,131|148,140|29|red
1F33E|ear of rice||e8ab1e|144,138,123|127,145|29|yellow
1F340|lucky clover||afc932|156,141,126|153,108|30|green
2618|shamrock|clover|5b9d31|149,155,112|147,127|40|green
1F341|maple leaf||f0a740|144,140,109|144,149|51|orange
1F343|green leaf||afca33|143,138,104|142,140|33|green
1F344|red mushroom||e08075|144,134,105|143,127|76|red
1F344-200D-1F7EB|brown mushroom||af8f60|144,142,95|144,131|72|brown,gray
E0C9|white mushroom||f4f2f0|144,149,105|143,143|76|white
1FAB4|potted plant||bfa044|144,142,114|141,140|41|green,orange
1FAB5|log||ac8436|154,143,111|145,143|66|brown
1FAA8|rock||c4c4c3|144,144,114|147,152|51|gray,black
# food
1F345|tomato||df5e40|143,134,112|143,144|83|red
1F346|eggplant||a591b1|145,142,125|151,162|51|purple
1F347|bunch of grapes||a185ba|144,144,128|144,143|46|purple
1F348|slice of cantaloupe|melon|d9a436|144,145,121|161,163|49|orange,green
1F349|slice of watermelon|melon|dd6943|125,164,120|107,180|49|red
1F34A|tangerine|orange|e8a81e|144,148,104|145,151|70|orange
E0C0|orange slice|orange|e68e1f|144,144,110|143,144|96|orange,yellow
1F34B|lemon||fae02e|146,142,121|146,142|66|yellow
1F34B-200D-1F7E9|lime wedge||75ab36|145,146,99|137,153|55|green
1F34C|banana||efc622|144,144,123|174,183|26|yellow
1F34D|pineapple||9b8035|147,149,126|147,152|42|brown,green
1F34E|red apple||e35641|144,142,113|144,156|73|red
1F34F|green apple||a3c332|145,141,113|146,155|74|green
1F350|pear||a8c632|145,158,128|161,158|40|green
1F351|peach||f0a4a8|146,143,127|146,150|66|pink
1F353|strawberry||cd5a3c|145,148,102|144,143|71|red
1F95D|kiwi||69a431|144,143,106|144,143|96|green
1F965|coconut||b59a77|142,143,111|145,147|83|brown,white
1F951|avocado||aab833|145,144,105|145,153|59|green
1F96D|mango||f3da28|140,141,120|133,137|62|yellow
E0C4|pomegranate||d5645f|144,144,127|149,153|65|red,white
1FAD2|olive||a1be33|143,144,98|143,144|71|green
1F954|potato||a47839|143,146,122|148,149|68|brown
1F955|carrot||df9a37|149,144,133|148,142|23|orange
1F33D|corn cob||c2cf2f|143,149,122|144,150|42|green,yellow
1F336|chili pepper||d4553b|146,138,122|189,190|25|red
1FAD1|bell pepper||b5312a|143,153,102|144,163|64|red
1F952|cucumber||9cbf32|144,144,132|147,147|31|green
1F96C|cabbage||4f9039|143,143,102|147,146|69|green
1F966|head of broccoli||67a431|144,143,107|144,134|67|green
1F9C4|garlic bulb||f0f0f0|146,143,116|145,156|55|white,gray
1F9C5|onion||ed9d3b|145,142,117|144,153|67|orange
1FADB|pea pod||9dbf33|143,158,162|141,182|24|green
1FADA|ginger root||9d7536|129,146,125|141,144|47|brown
1FADC|radish||ce7d3a|154,142,137|134,156|29|red,green
1F95C|peanut||976d36|148,149,121|148,148|42|brown
1F360|sweet potato||eea03c|144,144,141|142,146|34|orange
E0CA|loaf of bread||714c30|144,144,120|143,147|66|brown
1F950|croissant||efa740|144,124,113|143,124|42|orange
1F956|baguette||f0a740|144,144,142|143,144|36|orange
1F968|pretzel||f3c583|144,144,136|143,139|74|orange,white
1F96F|bagel||b3905e|144,144,119|143,144|77|brown
1F95E|stack of pancakes||e7d44d|143,144,104|142,145|70|yellow,gray
1F9C7|waffle||936c33|144,158,112|144,159|62|brown
1F9C0|piece of cheese||f9e429|144,134,153|147,141|57|yellow
1F357|chicken leg|meat|f2b051|144,141,109|143,133|35|orange
1F969|steak|meat|ec8477|144,144,132|150,152|58|red,white
1F354|hamburger||d18c38|144,144,128|143,149|60|orange,brown
1F35F|box of fries||ef943b|144,140,131|143,142|63|red,yellow
1F355|slice of pizza||f3c832|144,126,109|143,101|52|yellow
1F32D|hot dog||e98342|144,144,132|143,144|42|orange,red
1F96A|sandwich||deb63a|142,146,164|120,167|49|orange,green
1F32E|taco||e3d22f|144,142,124|144,149|58|yellow,green
1F32F|burrito||eed62e|144,144,129|143,148|47|yellow
1F95A|egg||f0f0f0|144,144,117|143,145|75|white,gray
1F373|frying pan||d3d2ca|160,128,153|151,136|43|gray
1F957|bowl of salad|bowl|dcd9a8|144,151,122|144,153|83|white,green
1F35A|bowl of rice|bowl|f7f7f7|144,148,121|143,149|92|white
1F35C|bowl of noodles|bowl|d43d26|144,149,146|144,164|39|red
1F35D|bowl of spaghetti|bowl|f0ecbc|144,153,151|145,171|42|white,yellow
1F372|bowl of soup|bowl|f2f2f1|144,144,129|142,179|51|white,gray
1F37F|box of popcorn||ef8e3c|144,138,116|143,134|57|red,yellow
1F9C2|salt shaker||f6f6f6|144,142,109|144,150|48|white
1F96B|tin can||dcd0ce|144,130,135|143,129|57|gray,white
1F371|lunch box||ede3e4|144,144,148|143,143|59|white
1F358|rice cracker||ee9b39|144,146,124|144,146|92|orange,black
1F359|rice ball||fefefe|144,144,164|143,162|59|white,black
1F365|fish cake||cfc3c2|144,145,123|143,144|88|gray
1F96E|mooncake||e5b826|142,144,110|143,143|89|yellow
1F95F|dumpling||f9e429|144,144,119|131,131|56|yellow
1F961|takeout box||fcf4f4|144,119,122|147,139|48|white
1F366|ice cream cone||f8e67f|144,144,133|145,158|51|yellow,white
1F368|ice cream cup||f9e776|144,142,107|144,139|63|yellow,white
1F369|donut||f0c023|144,144,122|102,186|88|yellow
1F36A|cookie||a37839|144,143,118|143,143|94|brown
1F382|birthday cake||fbee6f|144,135,169|144,158|51|yellow,white
1F370|slice of cake||faec72|144,134,168|149,162|49|yellow,white
1F9C1|cupcake||cbadbc|144,144,138|143,158|51|pink,blue
1F967|pie||faee68|144,142,142|143,152|56|yellow,white
1F36B|chocolate bar||d76243|144,144,151|144,147|55|red,brown
1F36C|wrapped candy||9fc132|144,144,138|143,144|35|green
1F36D|lollipop||eb8679|145,145,143|166,124|30|red,white
1F36E|pudding||d7c044|144,155,113|144,161|54|yellow,brown
1F36F|honey pot||f5b73c|144,142,129|143,140|72|orange
1F37C|baby bottle||97c3bc|145,146,135|144,146|37|blue,yellow
E0CB|glass bottle||86c8ed|144,144,133|143,165|26|blue
E0CC|water bottle||8bcbee|144,144,135|143,153|37|blue
1F37E|champagne bottle||c0bc67|145,142,165|129,157|22|gray,green
2615|coffee cup||e7e7e6|154,134,119|152,162|39|white,gray
1FAD6|teapot||cecdcc|145,144,118|147,152|49|gray
1F377|wine glass||e34f3f|144,144,153|143,120|27|red
1F379|cocktail glass||f7d425|144,142,147|145,159|29|yellow
1F943|whisky glass||efb06a|144,190,129|143,203|45|orange,white
1F37A|beer mug||f8dc5e|152,143,126|139,147|51|yellow,white
1F964|soda cup||eebcb9|144,143,137|144,164|42|white,red
1F9CB|bubble tea cup||d3a668|140,139,126|144,155|39|orange
1F9C3|juice box||f4b33d|158,144,154|145,164|41|orange
1F9CA|ice cube||95cced|146,138,108|146,137|72|blue,white
1F37D|dinner plate||cbcac9|140,153,156|140,145|41|gray
1F944|spoon||cbcac9|150,146,102|150,103|19|gray
1F52A|kitchen knife||c9c8c7|139,139,130|138,139|18|gray,black
1FAD9|glass jar||e9e9e9|144,144,128|144,146|60|white,gray
1F3FA|amphora|vase|ea9d3b|144,148,124|143,143|54|orange,black
26B1|urn|vase|ed9637|144,144,129|144,142|54|orange
E0C6|coffee bean||966c36|144,144,117|143,144|68|brown
E150|espresso machine||a4a19e|144,144,139|143,144|66|gray
E151|French press||b08d5c|152,140,123|147,149|55|brown,black
E152|moka pot||b0afae|151,138,132|146,140|43|black,gray
E153|milk jug||a8a7a6|157,144,150|145,141|47|gray
E155|coffee maker||eae5e2|144,144,139|123,143|62|white
E156|coffee grinder||b29369|134,142,132|171,138|30|brown,white
# places
1F30B|volcano||a39997|144,121,154|132,148|32|gray
1F3D4|snowy mountain||b0b0af|144,141,129|136,159|39|gray
26FA|camping tent||e9c633|144,146,119|143,170|33|yellow
1F3AA|circus tent||f3b6ae|144,160,120|143,172|45|white,red
1F3DF|stadium||c9ccce|144,142,126|144,146|49|gray
1F3DB|Greek temple||dadad9|144,144,141|143,155|47|white,gray
1F6D6|hut||876331|144,144,121|144,154|67|brown
1F3E0|house||e9bbaf|144,142,112|142,154|53|white,red
1F3E2|office building||c4ced3|144,146,136|143,145|58|gray
1F3E5|hospital||edeff3|144,144,137|143,152|57|white
1F3EB|school||c3b5a3|144,135,152|144,147|51|gray
1F3ED|factory||dd796e|144,121,150|148,168|31|red
E2D4|power plant||d7d5d4|147,144,163|132,158|41|gray,white
1F3EF|pagoda||e4e8e7|144,138,132|143,153|48|black,white
1F3F0|castle||cbbeb9|144,134,140|143,153|46|gray
26EA|church||e8e7e3|144,144,143|143,181|36|white
1F54C|mosque||d1bb9b|138,127,132|139,154|41|gray,orange
1F54D|synagogue||eeaa49|140,162,138|139,177|49|orange
26E9|torii gate||e35040|144,162,127|143,137|29|red,black
26F2|fountain||d0dadf|144,155,172|143,175|49|white,gray
1F3A1|Ferris wheel||a6a894|145,143,151|127,150|36|blue,orange
1F5FC|tower||ba7843|144,146,179|158,200|17|red
1F5FF|stone head||cac9c8|144,143,125|143,151|54|gray,black
1F6DD|slide||db847c|144,142,152|137,152|32|red,gray
1F488|barber pole||c2b6be|148,144,113|147,143|50|blue,red
E2D1|wind turbine||b0cad7|153,143,122|144,162|23|gray,blue
# vehicles
1F682|steam locomotive||3f2623|144,142,145|153,149|46|black
1F685|bullet train||d0bcb9|146,165,146|173,169|37|gray,black
1F68B|tram||d5b4b5|141,144,157|172,156|32|black,red
1F68C|bus||e3614e|146,186,132|154,181|33|black,red
1F690|van||cbc9c7|145,167,135|157,168|40|gray,black
1F691|ambulance|van|f0e3e2|144,165,132|154,162|41|white
1F692|fire truck||d77f73|142,167,126|144,166|47|red,gray
1F693|police car||bac0c2|145,164,131|151,169|38|gray
1F695|taxi|car|e6d43a|145,167,131|151,173|38|yellow,black
1F697|red car||ce756c|145,171,129|151,171|38|red
1F699|jeep|car|91c7e2|146,164,128|160,164|42|black,blue
1F3CE|racing car||d23c33|144,180,136|165,189|24|red
1F6FB|pickup truck||c7564e|143,166,138|142,172|33|red
1F69B|semi truck||454545|144,167,142|151,162|42|black
1F69C|tractor||c5bc5b|146,153,127|151,168|44|black,green
1F3CD|motorcycle||c96d60|144,154,141|139,159|35|red,gray
1F6F5|moped|motorcycle|d37c69|142,161,118|157,180|35|red,gray
1F9BD|wheelchair||d4cac8|140,131,113|149,151|43|gray
1F6FA|auto rickshaw||e1dcd8|154,145,126|159,137|53|white
1F6B2|bicycle||f6c3bd|147,156,116|147,174|35|white,red
1F6FC|roller skate||86b5c2|147,148,124|133,152|49|blue
26F8|ice skate||9dc8df|136,143,147|127,163|40|blue,gray
1F6DE|car wheel||fbfbfb|144,144,117|143,144|98|black,white
1F6A8|siren||db7065|143,137,132|145,169|40|red,gray
1F6A6|traffic light||cfc1ae|144,136,107|143,136|53|gray
1F6D1|stop sign||db5c56|144,144,113|143,143|89|red
1F6A7|road barrier||ecc243|144,144,135|143,128|43|black,yellow
2693|anchor||c8c7c6|146,147,101|145,160|40|gray
1F6DF|life ring||dc8c83|143,143,125|143,65|64|red,gray
26F5|sailboat||9dc7d8|143,141,162|148,180|35|blue,gray
1F6F6|canoe||65a5c8|144,147,136|139,136|26|blue
1F6A4|speedboat||a9d3ec|144,203,148|140,213|45|blue,white
1F6F3|cruise ship||a8d2ec|144,153,176|143,186|37|blue,black
2708|jet plane||b6b5b4|126,161,139|134,152|36|gray
1F6E9|propeller plane||d87f42|144,142,118|143,143|40|orange
1FA82|parachute||bfd487|144,146,120|144,128|67|green,white
1F681|helicopter||c98180|144,151,138|151,152|28|red,blue
1F6A1|cable car|gondola|d3d780|144,142,121|139,144|21|black,yellow
1F6F0|satellite||c0c0bf|144,144,156|136,136|43|black,gray
1F680|rocket||cd8266|144,144,140|145,142|34|red,blue
E20B|space shuttle|rocket|e7dbc9|144,144,126|143,151|52|white,gray
1F6F8|flying saucer||a3c1d1|144,147,115|144,153|41|gray,blue
1F9F3|suitcase||a0773b|144,148,133|143,153|61|brown
26FD|gas pump||d4b8b4|142,144,141|137,162|46|gray
# sky
231B|hourglass||d1c9bd|144,144,138|143,144|46|white,gray
231A|wristwatch|watch|b9b9b8|157,144,131|147,143|49|gray
E1CE|smartwatch|watch|9e9c9f|144,144,132|143,143|39|black,gray
23F0|alarm clock||f9f9f9|144,142,127|143,138|64|white
23F1|stopwatch|clock|fafafa|150,132,114|149,139|75|white
1F570|mantel clock||bcada3|143,138,151|143,153|46|white,brown
1F321|thermometer||e57b70|144,142,133|144,156|26|red,white
2602|umbrella||a387bb|142,144,135|142,100|48|purple
26C4|snowman||efefef|144,144,121|144,151|44|white
2744|snowflake||000000|144,144,121|143,143|21|black
1F525|flame||f7d826|144,143,131|146,166|49|yellow
1F4A7|water drop||86caf0|144,144,133|143,160|56|blue
1FA78|blood drop||e34f3f|144,144,133|143,160|56|red
1FA90|ringed planet||e4613c|144,145,137|144,146|51|red
1F319|crescent moon||f7de28|143,142,122|198,190|41|yellow
1F308|rainbow||cfa65f|144,144,163|147,147|41|
2601|cloud||cfcecd|144,144,131|144,155|56|gray
26A1|lightning bolt||f6e42a|144,145,152|142,139|19|yellow
2600|sun||f8e62a|144,144,125|143,144|70|yellow
1F30D|globe||9ecd9c|144,144,118|144,144|97|blue,green
# activities
1F383|pumpkin||e99f39|144,128,134|145,149|69|orange
1F388|balloon||e14c3d|171,138,163|175,115|37|red
1F389|party popper||eca42d|137,144,162|120,165|20|yellow,red
1F380|ribbon bow||e25140|141,158,140|141,140|49|red
1F381|gift||ea9e2d|144,140,134|144,147|59|yellow,red
1F39F|ticket||d74f48|142,142,145|140,142|46|red
1F396|military medal||f1a138|144,144,163|143,128|28|yellow,red
1F947|gold medal||f1e23c|144,144,154|144,153|48|yellow
1F3C6|trophy||f4d225|144,142,121|143,122|43|yellow
26BD|soccer ball||f6f6f6|144,144,122|143,144|97|white,black
26BE|baseball|ball|f3f3f3|144,144,122|143,143|97|white
1F94E|softball|ball|f3ce2a|144,144,118|143,144|97|yellow
1F3C0|basketball|ball|ef9f3b|144,144,122|143,144|97|orange
1F3D0|volleyball|ball|c4c3c2|144,144,122|143,143|97|gray
1F3C8|American football|ball|aa8555|144,144,133|143,143|53|brown
1F3C9|rugby ball||ed9d3b|144,144,134|143,143|52|orange
1F3BE|tennis ball||fae33b|144,144,122|143,144|97|yellow
1F3B1|billiard ball||5a5a5a|144,144,122|143,143|97|black
1F52E|crystal ball||ad92c3|144,143,137|143,147|55|purple
1FAA9|disco ball||c1c5d0|144,140,126|143,157|70|gray,white
1F94F|frisbee||85c7eb|146,144,137|148,129|34|blue
1F94D|lacrosse stick||b9b8b8|141,144,131|127,114|17|gray
1F3D3|ping-pong paddle||e2614b|147,140,152|145,124|45|red
1F94A|boxing glove||df6253|144,144,132|139,134|59|red
1F94B|karate uniform||cbcac9|144,144,128|144,145|65|gray,black
1F945|soccer goal||dfdfdf|144,145,135|144,130|50|gray,white
26F3|golf flag||c49353|144,144,154|120,158|19|green,red
1F3A3|fishing rod||82b8d3|144,144,175|186,190|16|blue,brown
1F93F|diving mask||a7c5d5|141,129,164|156,144|32|gray,blue
1F3BD|tank top||98d1df|140,144,153|143,154|51|blue
1F94C|curling stone||a08d8b|144,143,109|145,140|59|gray,black
1F3AF|target||eda49a|142,142,168|154,154|53|red,white
1FA80|yo-yo||b299a4|147,139,142|117,162|24|purple
1FA81|kite||ec8da6|136,139,171|101,103|16|pink
1F3AE|game controller||999998|144,138,161|143,172|37|gray
1F579|joystick||b57b75|144,144,151|143,171|27|gray,red
1F3B0|slot machine||ebdbda|154,144,130|142,144|53|white,black
1F3B2|die||b6b5b4|142,141,109|142,141|67|gray
1F9E9|puzzle piece||80c6ed|157,131,146|147,141|41|blue
1F9F8|teddy bear||8c6434|144,132,142|143,140|54|brown
1FA85|piñata||c8ab58|144,139,118|132,156|41|
1FA86|nesting doll||c2a0ac|144,143,132|143,154|53|blue,red
265A|chess king|chess piece|252525|144,144,117|143,160|53|black
265B|chess queen|chess piece|1c1c1c|144,140,142|143,162|43|black
265C|chess rook|chess piece|232323|144,142,127|143,141|43|black
265D|chess bishop|chess piece|1b1b1b|143,136,131|144,153|30|black
265E|chess knight|chess piece|1f1f1f|145,150,136|157,151|48|black
265F|chess pawn|chess piece|202020|144,134,136|144,146|33|black
1F5BC|framed image||93a789|144,144,141|143,143|64|blue,brown
1F3A8|paint palette||a3793a|146,146,97|143,148|69|brown
1F9F5|spool of thread||d86558|167,144,142|144,145|38|red
1FAA1|needle||aaccdd|134,142,126|158,124|17|blue,gray
1F9F6|ball of yarn||e38e33|148,139,150|125,141|39|orange
1F3F7|price tag||f3a941|145,145,144|151,145|57|orange
1F9E8|firecracker||d24027|146,140,141|112,140|19|red
# clothes
1F453|pair of eyeglasses||b4b3b2|150,134,140|150,131|38|gray
1F576|pair of sunglasses|glasses|252525|144,130,140|144,127|38|black
1F97D|pair of goggles|glasses|c3c2c1|144,146,130|143,134|41|gray
1F97C|lab coat||f0f0ef|143,144,127|143,147|64|white
1F9E5|brown coat||a27638|144,136,120|144,131|56|brown
1F9BA|safety vest||e67f27|145,144,148|144,144|63|orange
1F454|dress shirt||67adde|141,141,148|140,148|66|blue
1F455|T-shirt|shirt|62b1e2|144,127,124|143,127|60|blue
1F456|pair of jeans||5fafe0|150,158,145|190,148|51|blue
1FA73|pair of shorts||cccbca|146,138,110|146,135|60|gray,black
1F9E3|scarf||e2503f|144,144,121|157,123|47|red
1F9E6|sock||e99838|143,144,112|155,152|43|orange
1F457|dress||60b0e2|144,144,156|143,167|34|blue
1F458|kimono||f19a9f|143,143,139|143,127|47|pink
1FA71|swimsuit||a88dc0|142,147,140|143,153|33|purple
1F459|bikini||ae95c3|144,144,111|143,191|32|purple
1F45A|blouse|shirt|8a69aa|146,156,131|145,151|56|purple
1F45B|purse||9577b1|144,144,122|143,161|64|purple
1F45C|handbag||72513c|144,141,149|143,173|42|brown
1F6CD|shopping bag||fae92b|144,136,152|144,162|45|yellow
E2D2|tote bag||a57a39|144,143,111|143,157|58|brown
1F392|backpack||e04e3e|144,138,151|143,158|49|red
1FA74|flip-flop||f6e52a|139,144,106|141,142|42|yellow
1F45E|dress shoe||a37838|141,164,133|130,169|38|brown
1F45F|sneaker|shoe|a4a3a2|141,160,134|131,169|37|gray
1FA70|ballet shoe||fba4bd|145,182,124|141,192|32|pink
1F97E|hiking boot||9c7237|153,144,137|131,162|38|brown
1F462|tall boot||a07538|129,129,152|111,138|35|brown
1F460|high heel||cf2e26|150,157,143|141,173|26|red,black
1F461|sandal||7d5732|157,174,139|141,190|30|brown
1F451|crown||f8dd28|144,140,165|143,164|41|yellow
1F452|straw hat||df9c22|144,135,115|144,145|36|yellow
1F3A9|top hat||f9e72b|146,129,155|146,132|48|black,yellow
1F393|graduation cap||333029|144,132,139|139,133|34|black
1F9E2|baseball cap||42853d|137,136,118|148,141|45|green
1FA96|army helmet||517c44|143,133,127|130,109|49|green
26D1|fire helmet||dd5042|143,143,118|144,116|51|red,black
E14A|motorcycle helmet||cd322b|144,143,112|147,135|72|red,black
1F484|lipstick||d08d86|146,144,137|145,159|38|gray,red
1F48E|gemstone||69b5e2|144,152,146|144,124|50|blue
1FAAD|hand fan||d8564d|145,144,131|145,145|44|red
# music and technology
1F4E3|megaphone||e9c5c1|144,150,150|157,146|39|white,red
1F4EF|post horn||e2c22b|144,145,142|117,206|35|yellow,brown
1F514|golden bell||f9e62a|141,142,124|141,151|52|yellow
1F6CE|reception bell||d7a128|146,123,118|146,134|44|yellow
1F3A4|microphone||989897|136,141,134|148,126|21|black,gray
1F3A7|pair of headphones||bab9b8|144,139,122|176,183|37|gray
1F4FB|radio||c8c7c6|144,144,142|143,170|45|gray
1F3B7|saxophone||f4e32a|151,150,145|163,167|18|yellow
1FA97|accordion||d8c5c9|144,144,135|145,140|45|white
1F3B8|guitar||d37a60|144,147,135|108,167|19|red,brown
1F3B9|piano keyboard||fafafa|145,143,141|145,143|63|white,black
1F3BA|trumpet||f3e22a|149,144,140|132,127|25|yellow
1F3BB|violin||6f4b30|150,142,139|126,165|24|brown
1FA95|banjo||c4baac|143,141,147|105,176|18|gray
1F941|snare drum||e34f3f|143,141,143|143,181|36|red
1FA98|conga drum||d65d23|138,144,113|138,138|54|red,yellow
1FA88|flute||966c36|137,140,123|140,137|28|brown
1FA89|harp||eeb11c|152,142,131|128,144|28|yellow
1FA8A|trombone||f1e029|144,144,166|127,129|24|yellow
1F4F1|mobile phone||bcbbba|144,143,139|143,143|58|gray
E1CC|tablet computer|mobile phone|bfbebd|144,143,147|143,143|63|black,gray
260E|red telephone||e35545|144,136,132|143,135|57|red
1F4DF|pager||adb790|144,144,120|143,143|55|gray,green
1F4E0|fax machine||b2b3ae|144,142,134|143,146|60|gray
1F50B|battery||beca83|144,147,137|138,147|47|gray,green
1F50C|plug||c5c4c3|150,142,133|150,136|43|gray,black
E144|power outlet||e0dfdf|144,144,142|143,144|68|gray,white
1F4BB|laptop||ababaa|150,143,169|150,143|62|gray
1F5A5|computer monitor||c2c2c2|145,158,169|144,143|59|gray,white
1F4FA|television|monitor|b2b2b1|144,166,166|144,148|52|black,gray
1F5A8|printer||b4b3b2|146,146,157|145,141|75|gray
2328|computer keyboard||c6c5c4|144,144,148|143,143|55|gray
1F4BE|floppy disk||afb6ba|144,144,147|144,143|64|black,gray
1F4BF|compact disc||e1e0df|146,144,122|146,104|95|gray,white
E1D3|circuit board||94bc32|144,144,143|145,143|63|green
E1D6|solar panel||85caef|142,144,145|138,144|43|blue
E1D2|drone||e4e4e4|144,144,158|143,144|40|white,gray
E1C8|engine||a4a4a3|142,140,115|140,141|76|gray
E1CF|washing machine||c4cace|144,150,131|143,150|63|gray
1F3A5|movie camera||323232|135,146,137|141,179|42|black
1F39E|film strip||eaeae9|144,144,128|143,143|62|white,gray
1F4FD|film projector||b5b4b3|141,144,119|136,150|53|gray
1F3AC|clapperboard||343434|136,135,130|139,155|46|black
1F4F7|photo camera||c0bdb7|144,138,120|142,147|57|gray,black
1F4F9|video camera||bdbdbc|148,135,130|142,147|52|gray,black
E1C4|security camera||b8b4b3|142,143,104|136,126|30|gray
1F4FC|video cassette||cecbb4|144,144,150|144,143|57|gray
1F50D|magnifying glass|magnifier|dee6ea|140,137,127|130,116|30|white,black
1F56F|candle||efebbf|141,144,119|141,160|24|white,gray
1F4A1|light bulb||f7e847|144,143,120|144,124|47|yellow
1F526|flashlight||c7c5b5|136,155,130|144,147|23|gray
1F3EE|paper lantern||e57366|142,144,134|141,143|55|red
E143|lighter||e0684d|144,144,131|141,168|29|red
# office and money
1F4D3|notebook||a3a3a2|142,146,142|141,145|65|gray
E256|address book||f0b91e|134,144,156|140,144|57|yellow
1F4D5|red book||d64139|142,146,142|141,145|65|red
1F4D7|green book||a8c632|152,134,150|148,138|61|green
1F4D8|blue book||8dcff2|152,134,150|148,138|61|blue
1F4D9|orange book||f1a43e|152,134,150|148,138|61|orange
1F4D6|open book||efefee|144,154,160|143,145|56|white,gray
1F4F0|newspaper||c5c5c4|146,134,147|146,134|62|gray
1F516|bookmark||e45040|146,134,104|145,125|44|red
1F4B0|money bag|money|9d7237|143,143,120|142,145|62|brown
1FA99|gold coin||f6e035|142,144,123|142,144|82|yellow
1F4B5|dollar bill||b5c8a7|150,148,121|150,148|59|gray,green
1F4B3|credit card||94d2ed|144,148,122|143,148|59|blue,black
1F9FE|receipt||cecdcc|143,144,101|143,143|58|gray
2709|gray envelope||c5c4c3|143,146,121|143,146|60|gray
1F9E7|red envelope||d33b26|144,144,151|143,143|57|red
1F48C|love letter|envelope|fbece9|144,141,153|143,140|61|white
1F4E6|cardboard box||ebae57|142,144,124|142,144|82|orange
1F4EB|blue mailbox||8ac0e3|143,144,114|143,120|58|blue
1F4EE|red mailbox||e1776b|143,159,138|142,143|52|red
1F5F3|ballot box||cacac9|144,139,158|145,165|46|gray
270F|pencil||d38e4f|145,139,144|145,139|22|orange
1F58B|fountain pen||a4a3a2|145,141,135|144,141|22|gray,black
1F58A|ballpoint pen||cccbca|150,147,137|154,141|26|gray
1F58C|paintbrush||8fbac9|143,142,134|148,139|26|blue
1F58D|crayon||d2362c|147,138,136|147,139|24|red
1F4BC|briefcase||a37838|144,142,137|144,155|56|brown
1F4C1|file folder||c3c2c1|144,144,139|140,150|61|gray
1F4C5|calendar||f0c2bc|144,137,146|140,140|57|white,red
1F4CB|clipboard||ddd2c3|143,148,143|142,155|57|white,brown
1F4CC|pushpin||d86052|141,145,117|141,126|23|red
1F4CF|ruler||bdbcbb|144,142,119|144,142|32|gray
1F4D0|set square|ruler|b9b8b7|145,144,117|128,126|32|gray
2702|pair of scissors||c67972|139,150,125|137,158|36|red,gray
1F5C4|file cabinet||c8c7c6|144,144,128|143,140|60|black,gray
1F5D1|trash can||e8e8e8|143,144,133|143,136|51|white,gray
1FAA7|protest sign||dfdad3|144,143,115|143,123|49|white,gray
1FAAA|ID card||d0cfc2|144,144,146|143,143|61|gray
E147|name badge||d5d4d4|144,139,159|143,156|55|gray,white
E242|map pin||d2d2d1|144,144,121|143,121|52|gray,white
1F5E8|speech bubble||fefefe|144,148,133|146,146|54|white
# tools and house
1F512|padlock||f1d739|143,143,126|143,163|47|yellow
1F511|orange key||eda03c|144,145,128|153,132|27|orange
1F5DD|black key||181818|142,145,121|144,137|26|black
1F528|hammer||9e8a6b|152,148,122|144,121|19|gray,brown
E347|axe||a7967d|144,144,150|161,107|24|gray,brown
26CF|pickaxe||b29c7e|143,147,112|142,122|24|gray,brown
1F5E1|dagger|knife|aaaaa9|144,142,123|145,140|19|gray,black
1F52B|pistol||b5a082|147,145,120|187,149|30|gray,brown
1FA83|boomerang||aa7635|137,140,128|182,95|24|brown
1F6E1|shield||d7655b|144,144,112|144,129|64|red,gray
1FA9A|saw||b69491|153,142,126|149,147|27|gray
1F527|wrench||cecdcc|146,155,110|145,140|34|gray
1FA9B|screwdriver||d6934c|147,145,124|158,156|17|orange
2699|gear||c6c5c4|144,140,101|144,139|74|gray
1F5DC|clamp||c4c3c3|140,144,109|136,171|34|gray
E32B|bathroom scale||9dd6f4|143,144,105|143,153|63|blue
1FA9D|hook||969695|125,140,124|156,148|24|gray
1F9F0|toolbox||dc4d3f|144,144,143|143,143|64|red
1F9F2|magnet||e78249|140,142,111|185,159|32|red,yellow
1FA9C|ladder||a38259|144,144,125|147,137|21|brown
1FA8F|shovel||b6a895|144,144,131|128,159|21|gray,brown
E346|trowel||ad9e89|144,144,101|143,158|31|gray,brown
E344|wheelbarrow||5b9d31|144,161,142|156,157|22|green
E343|lawn mower||a9c173|144,136,158|172,180|19|green,gray
E257|funnel||f8d927|144,144,146|144,104|28|yellow
1F9EA|test tube||bbd380|142,143,100|141,148|36|green,white
1F9EB|petri dish||a1cde3|144,145,92|144,145|96|blue,gray
1F9EC|DNA strand||b89299|144,144,139|145,143|36|blue,red
1F52C|microscope||c9c8c7|142,147,124|131,132|29|gray,black
1F4E1|satellite dish||c2c2c1|144,152,132|162,140|22|gray
1F48A|pill||ae8e9a|143,144,125|143,144|51|blue,red
E305|blister pack||93c9e6|144,144,128|143,144|64|blue
E307|medicine jar||9ac3df|144,144,126|143,146|69|blue
E30F|hot-water bottle||71bbe6|144,143,109|144,149|63|blue
1FA79|bandage||ef91aa|144,146,125|143,146|39|pink
E140|first aid kit||cec2bf|143,143,135|143,156|51|gray
1F6AA|door||8f6635|144,144,135|143,143|59|brown
1FA9E|mirror||b9d8a6|143,144,111|143,143|70|blue,yellow
1FA9F|window||b6bfb5|144,144,146|143,143|65|blue,brown
1F6CF|bed||9fb2ad|144,144,151|140,157|31|blue,brown
1F6CB|couch||87c4d7|144,140,163|138,160|36|blue
E141|armchair|chair|60b0e2|144,130,140|144,143|52|blue
1FA91|dining chair||e6ca2b|143,145,141|139,156|22|yellow
1F6BD|toilet||c4c3c3|143,145,128|149,155|39|gray
1FAA0|plunger||bf452f|154,154,129|164,164|18|red,brown
1F6BF|shower head||b1b7b9|141,147,139|144,141|28|gray
1F6C1|bathtub||c5c4c3|144,148,139|149,174|35|gray
1FAA4|mousetrap||a27935|149,155,120|152,156|42|brown
1FA92|razor||a6cfe4|144,148,140|144,108|22|blue,gray
1F9F4|lotion bottle||a39bad|144,145,99|144,158|48|blue,red
E0B1|spray bottle||bcbbc9|142,136,136|95,154|24|blue,white
1F9F7|safety pin||262625|156,145,109|172,91|20|gray
1F9FA|basket||a27738|144,141,113|140,157|54|brown
1F9FB|roll of toilet paper||f2f2f2|144,144,142|140,143|69|white,gray
1FAA3|bucket||84c6eb|144,138,114|143,154|44|blue
1F9FC|bar of soap||e9a9c3|135,143,103|137,149|61|pink
1FAA5|toothbrush||afd1e3|143,131,114|156,128|16|blue,white
1F9FD|sponge||dbb440|137,143,109|138,137|56|yellow
1F9EF|fire extinguisher||de5f51|152,147,137|146,143|33|red
1F6D2|shopping cart||cac9c8|144,143,144|134,133|31|gray
26B0|coffin||976d36|144,144,134|144,137|53|brown
1FAA6|gravestone||929a8c|144,144,135|144,152|53|gray
1F4A3|bomb||9a9a99|146,142,162|133,155|38|gray,black
1F9FF|evil eye amulet||628bc0|145,144,122|145,143|97|blue
1F9ED|compass||f3ca29|144,144,102|143,144|96|yellow
1F5FA|world map||98cfc2|144,144,151|143,143|57|blue,green
1FA8E|treasure chest||c1932c|146,150,116|145,152|56|brown,yellow
1F6E2|oil barrel||cdcccb|147,143,102|147,144|52|gray,black
E2D3|radioactive barrel||f5d526|141,141,125|141,143|52|yellow
E149|police box||3a609b|144,144,128|143,151|47|blue
# body and fantasy
1F9B4|bone||f0f0ef|144,143,123|145,143|32|white,gray
1F9B7|tooth||f4f4f4|143,152,120|143,136|59|white
1F9E0|brain||fca5be|145,145,127|136,146|51|pink
E313|stomach||f9a1ba|127,148,120|131,154|36|pink
E316|kidney||cf2e27|136,143,98|156,137|54|red
1F441|eye||e6dccc|143,146,144|143,145|59|white
1F442|ear||f5dc28|145,140,114|143,136|50|yellow
1F443|nose||fae82b|144,145,103|144,155|52|yellow
1F444|mouth||e7614f|144,144,118|144,142|52|red
1F9B6|foot||f7dd28|132,142,128|174,169|32|yellow
1F480|skull||f0f0f0|144,146,104|143,142|75|white,gray
1F47B|ghost||edecec|146,145,119|147,155|56|white,gray
1F47D|alien||c3c2c1|144,146,111|143,140|76|gray
1F916|robot||c2c0bf|144,134,112|144,142|75|gray
1F47E|space invader||8967aa|144,142,126|143,135|52|purple
1F9BE|robot arm||c4c3c2|144,143,136|154,198|26|gray
1F977|ninja||302e18|130,138,144|138,149|43|black
1F9DC|mermaid||c0c62f|150,142,153|133,146|27|yellow,green
1F9DA|fairy||d0c032|151,148,137|146,159|55|yellow,green
1F9D9|wizard||a1ccb6|148,138,135|147,147|46|blue,yellow
"""
