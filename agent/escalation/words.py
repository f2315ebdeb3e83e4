"""Words that decide whether something is a name: everyday words that begin none, nouns that German capitalises, and
common given names. Lower case. None of the lists is complete; the phrases around a word count more."""

from __future__ import annotations

from typing import Final

COMMON: Final = frozenset(
    """
    a about above after again ago ahead alive all allergic allowed alone already also always am an and another any
    anybody anyone anything are around as asap at away awesome back bad be because been before behind being below
    best better between blind both bored broken busy but by call can can't cannot child children closed cold come
    coming completely confused could currently curious deaf did diabetic different difficult disabled disappointed
    do does doing done don't down driving during each early either else english even every everybody everyone
    everything excellent expecting far few fine first for free from full fun german get getting glad go going gone
    good got great guys had half happy hard has have having he hello help her here hers hi him his home hope hot how
    however hungry i i'd i'll i'm i've if ill important in inside interested into is isn't it it's its just keen
    know last late later leaving left let like little local located long looking lost lots love made make many may
    maybe me mine missing more morning most much must my name near need needs never new next nice no nobody none nor
    not nothing now of off ok okay old on once one only open or other our ours out outside over parked pensioner
    perfect planning please possible pregnant probably question quite rather ready really right running sad said
    same saw see sent senior she should sick since sitting so some someone something soon sorry standing still stuck
    student such sure that that's the their them then there there's these they they're thing this those thirsty
    through time tired to today together tomorrow tonight too travelling trying two under unable unhappy until up
    upset urgent us using vegan vegetarian very via visiting waiting want wanted was we we're welcome well went were
    what what's when where which while who whose why will wish with without wondering working worried would wrong
    yes yesterday yet you you're your yours misspelled misspelt spelled written listed registered known wheelchair
    monday tuesday wednesday thursday friday saturday sunday january february march april june july august september
    october november december team staff reception sir madam platform gate room coach seat mr mrs ms dies diese
    dieser dieses ab aber abend alle allein alles als andere auch auf aus außer bald bei beide beim bereits besser
    bin bis bisher bist bitte da dabei dafür damit danach danke dann daran darauf das dass davon dazu dein deine dem
    den denn der des deshalb dich die dir doch dort draußen drei du durch durstig ein eine einem einen einer eines
    einfach einmal er es etwas euch euer fast falsch für ganz gar geboren gegen gehbehindert gehen gehörlos gerade
    gern gerne gestern gesucht groß gut guten habe haben hallo hast hat hatte heute hier hin hinter hungrig ich ihm
    ihn ihnen ihr ihre ihrem ihren im immer ins interessiert ist ja jede jeder jemand jetzt kann kannst kein keine
    keiner klein komme kommen können könnte krank kurz lange leider letzte letztes man mal mehr mein meine meinem
    meinen meiner mich mir mit morgen muss müde müssen nach nächste neben nein neu nicht nichts nie niemand noch nun
    nur ob oben oder ohne richtig satt schon schwanger sehr sein seine seit sich sie sind sofort sogar soll sondern
    spät später suche super taub toll über um und uns unser unsere unten unter unterwegs verloren verirrt verwirrt
    viel viele vier vom von vor vorne wann war waren warum wegen weg weil welche welcher wenn wer werde werden wie
    wieder willkommen wir wird wo woher wohin wohl wurde zu zuerst zufrieden zum zur zurück zwei zwischen zwar
    herzlich montag dienstag mittwoch donnerstag freitag samstag sonntag januar februar märz mai juni juli oktober
    dezember namen tel telefon handy mobil phone email mail tickets ticket parking entrance exit eingang ausgang dob
    geb iban card karte nhs
    """.split()
)

NOUNS: Final = frozenset(
    """
    accessibility adult american anfang angst arzt asthma aufzug autistic auto azubi baby bahn bahnhof bean
    behindert besitzer besuch besucher besuchergruppe blinde blinder brite buddhist canadian carer catholic council
    customer deutsche deutscher deutschland diabetes diabetiker doctor driver durst dutch eintritt eltern ende
    england engländer erwachsener europa europe familie fan fieber frau french freund freundin gast geburtstag
    gepäck german germany god greek gruppe guest heaven hell herr hilfe hindu hund hunde hunger husten information
    inhaber internet jew jewish kaffee karten kasse kind kinder klasse kopfschmerzen kunde kundin lehrer lehrerin
    leute licht mama mann member mitglied museum muslim mutter nurse oma opa outside papa parent patient patientin
    pensioner platz police press problem probleme rabatt raum recommended reiseleiter rentner rentnerin ringe
    rollstuhl schmerzen schulklasse schweizer schweizerin schwester schüler schülerin security service shop single
    sohn strom student studentin swiss tasche teacher thai tochter toilette toiletten tourist touristin tür vater
    vegetarier vegetarierin veteran visitor wasser wc welsh whippy wi-fi wifi wlan work zeuge zimmer ärztin
    österreicher
    """.split()
)

GIVEN: Final = frozenset(
    """
    aaron abdul abigail adam adele adrian agnes agnieszka ahmed aisha alan albert alejandro alex alexander alexandra
    alexis alfred ali alice alicia alina aline alison alma alois amanda amber amelia amina amir amy ana anastasia
    andrea andreas andrew andrzej angela angelika anita anja anke ann anna anne annette annika anthony antje anton
    antonia antonio arda armin arne arthur artur astrid aylin ayşe barbara barry bastian beate beatrice ben benedikt
    benjamin bernard bernd bernhard beth bettina betty bianca bill birgit bjarne björn bob boris brenda brian
    brigitte bruno burak caitlin can carina carl carla carlos carmen carol caroline catherine cem charles charlie
    charlotte chloe chris christa christian christiane christina christine christoph christopher claire clara
    claudia clemens colin connor craig cristina dagmar daisy damian dan daniel daniela daphne dave david dawn dean
    deborah denise dennis derek detlef diana diane dieter dimitri dirk dolores dominic dominik donald dora doris
    dorothea douglas duncan dylan edgar edith eduard edward ela elena elif elizabeth elke ella ellen elsa emil
    emilia emily emine emma emre enrique eric erich erik erika erin ernst erwin esra esther eugen eva eve evelyn
    fabian fatima fatma felicitas felix ferdinand finn fiona florian frances francesca francesco francis frank franz
    franziska fred freddie frida frieda friedrich fritz gabriel gabriele gareth gary gavin geoff georg george gerald
    gerd gerhard gertrud giovanni gisela giulia gordon grace graham greg gregor greta guido gunter günter günther
    hakan hamza hanna hannah hannelore hannes hans harald harriet harry hasan hassan heather heidi heike heiko
    heinrich heinz helen helena helga helmut hendrik henriette henry herbert hermann hilde holger horst howard
    hubert hugh hugo hussein ian ibrahim ida igor ilona ilse imran ines inge ingo ingrid irene irina iris irma
    isabel isabella isla ivan jack jacob jakob jakub james jamie jan jana jane janet janine jannik jason javier jay
    jean jeff jenna jennifer jenny jens jeremy jerry jessica jill jim joachim joan joanna joanne jochen joe joel
    johann johanna johannes john jonas jonathan jorge josef joseph joshua josé joyce juan judith julia julian
    juliane julie jutta jörg jürgen kai karen karin karina karl karla karsten kate katharina katherine kathrin katie
    katja katrin kay keith kelly kemal ken kenneth kerstin kevin khalid kim kirsten klara klaus konrad konstantin
    kristin kristina kurt kyle lara lars laura lauren lea leah lee leila lena leni leo leon leonard leonie leopold
    lesley levi lewis liam lilly lina linda lisa liz lorenz lothar louis louise luca lucas lucia lucy ludwig luis
    luisa luise lukas luke lutz lydia mable magda magdalena maja malte mandy manfred manuel manuela marc marcel
    marco marcus margaret margarete maria marianne marie marina mario marion marius mark marko markus marlene marta
    martha martin martina marvin mary mateusz mathias mathilda matteo matthew matthias max maximilian maya megan
    mehmet melanie melissa mia michael michaela michał michel michelle miguel mike mila milan mina miriam mohamed
    mohammad mohammed molly monica monika monique moritz murat mustafa myriam nadia nadine nadja nancy natalia
    natalie nathan neil nicholas nick nico nicola nicole nigel niklas nils nina noah noel nora norbert norman olaf
    ole oleg olga oliver olivia omar oscar oskar osman otto owen pablo pamela pascal patricia patrick paul paula
    pauline pedro peggy peter petra phil philip philipp phoebe pia pierre piotr priya rachel rafael ralf ralph
    ramona raphael rebecca regina reiner reinhard renate rené ricardo richard rita rob robert roberto robin roger
    roland rolf roman ronald ronja rosa rose rosemary rosie ross roy ruben rudi rudolf rupert ruth ryan sabine
    sabrina sally sam samantha samir samuel sandra sara sarah sascha scott sean sebastian selin selina selma serkan
    sharon sheila shirley sibylle siegfried sigrid silke silvia simon simone sofia sofie sonja sophia sophie stefan
    stefanie stella stephan stephanie stephen steve steven stuart sue susan susanne suzanne svea sven svenja sybille
    sylvia tamara tanja tatjana ted teresa terry tess theo theodor theresa thomas thorsten till tim timo timothy
    tina tobias toby tom tomasz tony torsten tracy udo ulf uli ulrich ulrike umut ursula uschi ute uwe valentin
    valentina valerie vanessa vera verena veronica veronika victor victoria viktor viktoria vincent viola volker
    walter waltraud wanda wendy werner wilhelm will willi william wilma winfried wolf wolfgang xaver yannick yasemin
    yasmin yusuf yvonne zara zeynep zoe zoë özlem
    """.split()
)
