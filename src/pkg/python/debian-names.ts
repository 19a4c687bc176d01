/**
 * What Debian calls Python distributions where it is not `python3-` and the normalised name: after the import name mostly.
 *
 * Secret: the table, taken from dh-python's list of Debian's own packages (bookworm). A package of ours must have Debian's name,
 * or both would own the same files and dpkg would refuse the second.
 */

const TABLE = `
-pycbf=pycbf absl-py=absl adapt-parser=adapt adios-mpi=adios agate-dbf=agatedbf agate-excel=agateexcel
agate-sql=agatesql ament-index-python=ament-index amp-atomistics=amp ansicolors=colors antlr4-python3-runtime=antlr4
apache-libcloud=libcloud apertium=apertium-core apertium-streamparser=streamparser argon2-cffi=argon2
atpublic=public attrs=attr azure-devops=azext-devops basemap=mpltoolkits.basemap bcc=bpfcc beautifulsoup4=bs4
biomaj=biomaj3 biomaj-cli=biomaj3-cli biomaj-core=biomaj3-core biomaj-daemon=biomaj3-daemon
biomaj-download=biomaj3-download biomaj-process=biomaj3-process biomaj-user=biomaj3-user
biomaj-zipkin=biomaj3-zipkin blis=cython-blis blurhash-python=blurhash boolean-py=boolean
bootstrap-flask=flask-bootstrap brian2=brian btchip-python=btchip buildstream-external=bst-external bx-python=bx
calmjs-parse=calmjs.parse calmjs-types=calmjs.types cassandra-driver=cassandra cattrs=cattr ceph=ceph-common
certbot-plugin-gandi=certbot-dns-gandi channels=django-channels cherrypy=cherrypy3 citeproc-py=citeproc
clap-api=clap consensuscore=pbconsensuscore constraint-grammar=cg3 construct-legacy=construct.legacy
crispy-forms-foundation=django-crispy-forms-foundation csxcad=openems ct3=cheetah cxx=cxx-dev cylc-flow=cylc
darts-util-lru=darts.lib.utils.lru dbus-deviation=dbusdeviation dbus-python=dbus diaspy-api=diaspy
dicompyler-core=dicompylercore discord-py=discord django-admin-sortable=django-adminsortable
django-ajax-selects=ajax-select django-bootstrap-form=django-bootstrapform django-cas-client=django-casclient
django-filter=django-filters django-simple-captcha=django-captcha django-simple-redis-admin=django-redis-admin
django-sortedm2m=sortedm2m djangorestframework-guardian=django-restframework-guardian djangosaml2=django-saml2
dkimpy=dkim dnapi=dnapilib dns-lexicon=lexicon docker-pycreds=dockerpycreds dogpile-cache=dogpile.cache
drf-extensions=djangorestframework-extensions drf-flex-fields=djangorestframework-flex-fields
drf-generators=djangorestframework-generators drf-haystack=djangorestframework-haystack
drf-spectacular=djangorestframework-spectacular dxtbx=cctbx easy-ansi=easyansi edgegrid-python=edgegrid
faker=fake-factory fenics-basix=basix fenics-dijitso=dijitso fenics-dolfin=dolfin fenics-ffc=ffc fenics-ffcx=ffcx
fenics-fiat=fiat fenics-ufl=ufl fhs-paths=fhs flask-jwt-extended=python-flask-jwt-extended
flask-multistatic=flaskext.multistatic flask-security-too=flask-security flask-wtf=flaskext.wtf
flufl-bounce=flufl.bounce flufl-enum=flufl.enum flufl-i18n=flufl.i18n flufl-lock=flufl.lock
flufl-testing=flufl.testing freetype-py=freetype fuse-python=fuse gavodachs=gavo-utils gitpython=git
gitup=git-repo-updater glad2=glad gladtex=gleetex glfw=pyglfw glue-core=glue gnuplot-py=gnuplot
google-api-python-client=googleapi gphoto2-cffi=gphoto2cffi grammalecte-fr=grammalecte
graphene-django=django-graphene grpcio-tools=grpc-tools guess-language-spirit=guess-language
h5py-debian-h5py-mpi=h5py-mpi h5py-debian-h5py-serial=h5py-serial harmony-discord=harmony
haystack-redis=django-haystack-redis hidapi=hid hidapi-cffi=hidapi hiera-py=hiera horizon=django-horizon
hurry-filesize=hurry.filesize hydroffice-bag=hydroffice.bag hyperkitty=django-hyperkitty imbalanced-learn=imblearn
input-remapper=inputremapper isospecpy=isospec jaraco-classes=jaraco.classes jaraco-collections=jaraco.collections
jaraco-context=jaraco.context jaraco-functools=jaraco.functools jaraco-itertools=jaraco.itertools
jaraco-text=jaraco.text javaobj-py3=javaobj jpype1=jpype json-rpc=jsonrpc jsonpointer=json-pointer
junit-xml=junit.xml kafka-python=kafka keyrings-alt=keyrings.alt kyoto-cabinet=kyotocabinet lazr-config=lazr.config
lazr-delegates=lazr.delegates lazr-restfulclient=lazr.restfulclient lazr-uri=lazr.uri libais=ais libhfst-swig=hfst
libusb1=usb1 libvirt-python=libvirt linkify-it-py=linkify-it luma-core=luma.core luma-emulator=luma.emulator
luma-lcd=luma.lcd luma-led-matrix=luma.led-matrix luma-oled=luma.oled magics=magics++
mallard-ducktype=mallard.ducktype markdown-it-py=markdown-it mastodon-py=mastodon mecab-python=mecab
meson-python=mesonpy metomi-isodatetime=isodatetime mmcif-pdbx=pdbx mmtf-python=mmtf modernize=libmodernize
moksha-common=moksha.common mysql-connector-python=mysql.connector mysqlclient=mysqldb network-wrapper=network
networking-baremetal=ironic-neutron-agent nexus=nxs notofonttools=nototools numpy-stl=stl odfpy=odf omgifol=omg
ooolib-python=ooolib openidc-client=python-openidc-client openmm=simtk openslide-python=openslide
openstack-heat=heat openstack-nose-plugin=openstack.nose-plugin openstack-placement=placement opentype-sanitizer=ots
oslo-cache=oslo.cache oslo-concurrency=oslo.concurrency oslo-config=oslo.config oslo-context=oslo.context
oslo-db=oslo.db oslo-i18n=oslo.i18n oslo-limit=oslo.limit oslo-log=oslo.log oslo-messaging=oslo.messaging
oslo-metrics=oslo.metrics oslo-middleware=oslo.middleware oslo-policy=oslo.policy oslo-privsep=oslo.privsep
oslo-reports=oslo.reports oslo-rootwrap=oslo.rootwrap oslo-serialization=oslo.serialization
oslo-service=oslo.service oslo-upgradecheck=oslo.upgradecheck oslo-utils=oslo.utils
oslo-versionedobjects=oslo.versionedobjects oslo-vmware=oslo.vmware osmium=pyosmium ovs=openvswitch
pdb-tools=pdbtools pdfminer-six=pdfminer phylo-treetime=treetime pillow=pil postorius=django-postorius
powerline-status=powerline pplpy=ppl ppmd-cffi=ppmd pssh=psshlib psycopg=psycopg3 psycopg-pool=psycopg3-pool
py-cpuinfo=cpuinfo py-enigma=enigma py-lz4framed=lz4framed py-moneyed=moneyed py-postgresql=postgresql
py-radix=radix py-ubjson=ubjson py3dns=dns py3ode=pyode pyacoustid=acoustid pyahocorasick=ahocorasick
pyalsaaudio=alsaaudio pyaml=pretty-yaml pybluez=bluez pycairo=cairo pychm=chm pycollada=collada
pycryptodomex=pycryptodome pycryptosat=cryptominisat pycups=cups pydispatcher=pydispatch pyenchant=enchant pyepr=epr
pyequihash=equihash pyerfa=erfa pyfltk=fltk pyforge=forge pyftdi=ftdi pygithub=github pygobject=gi pygrib=grib
pygtkspellcheck=gtkspellcheck pyhamcrest=hamcrest pyhdf=hdf4 pyicu=icu pyjwt=jwt pykerberos=kerberos pyliblo=liblo
pylibtiff=libtiff pyls-isort=pylsp-isort pymdown-extensions=pymdownx pymecavideo=mecavideo pymemoize=memoize
pymia=mia pymilter=milter pymox=mox pymupdf=fitz pynacl=nacl pynamecheap=namecheap pynmea2=nmea2 pyopengl=opengl
pyopenssl=openssl pypairix=pairix pyparallel=parallel pyparted=parted pypmix=pmix pypng=png pypubsub=pubsub
pyqt-builder=pyqtbuild pyqt-qwt=pyqt5.qwt pyqt5-sip=pyqt5.sip pyqt6-qscintilla=pyqt6.qsci pyqt6-sip=pyqt6.sip
pyqt6-webengine=pyqt6.qtwebengine pyqtwebengine=pyqt5.qtwebengine pyrdfa3=pyrdfa pyrfc3339=rfc3339 pysdl2=sdl2
pysendfile=sendfile pyserial=serial pyserial-asyncio=serial-asyncio pysfml=sfml pysmbc=smbc pysnmp=pysnmp4
pysnmp-apps=pysnmp4-apps pysnmp-mibs=pysnmp4-mibs pysocks=socks pysrs=srs pystaticconfiguration=staticconf
pystemmer=stemmer pysubnettree=subnettree pysurfer=surfer pysvn=svn pytaglib=taglib pytango=tango pytest-qt=pytestqt
pytest-salt=pytestsalt pytest-salt-factories=saltfactories pytest-testinfra=testinfra python-aalib=aalib
python-apt=apt python-aptly=aptly python-augeas=augeas python-axolotl=axolotl
python-axolotl-curve25519=axolotl-curve25519 python-barbicanclient=barbicanclient python-bidi=bidi
python-binary-memcached=binary-memcached python-bitcoinlib=bitcoinlib python-blazarclient=blazarclient
python-box=box python-bugzilla=bugzilla python-can=can python-casacore=casacore python-cinderclient=cinderclient
python-cloudkittyclient=cloudkittyclient python-community=louvain python-consul=consul python-consul2=consul2
python-corepywrap=corepywrap python-cpl=cpl python-crontab=crontab python-cyborgclient=cyborgclient
python-daemon=daemon python-dateutil=dateutil python-dbusmock=dbusmock python-debian=debian
python-debianbts=debianbts python-decouple=decouple python-designateclient=designateclient
python-digitalocean=digitalocean python-distutils-extra=distutils-extra python-djvulibre=djvu
python-docs-theme=docs-theme python-docx=docx python-dotenv=dotenv python-dracclient=dracclient python-editor=editor
python-engineio=engineio python-espeak=espeak python-etcd=etcd python-evtx=evtx python-fedora=fedora
python-freecontact=freecontact python-freezerclient=freezerclient python-gammu=gammu
python-geotiepoints=geotiepoints python-gflags=gflags python-gitlab=gitlab python-glanceclient=glanceclient
python-glareclient=glareclient python-gnupg=gnupg python-gvm=gvm python-heatclient=heatclient python-hglib=hglib
python-hpilo=hpilo python-ilorest-library=ilorest python-instagram=instagram python-ipmi=pyipmi
python-iptables=iptables python-irodsclient=irodsclient python-ironicclient=ironicclient python-jenkins=jenkins
python-jose=jose python-json-logger=pythonjsonlogger python-k8sclient=k8sclient python-karborclient=karborclient
python-keystoneclient=keystoneclient python-ldap=ldap python-levenshtein=levenshtein python-libdiscid=libdiscid
python-libguess=libguess python-libnmap=libnmap python-librtmp=librtmp python-linux-procfs=linux-procfs
python-lsp-black=pylsp-black python-lsp-jsonrpc=pylsp-jsonrpc python-lsp-server=pylsp python-ly=ly python-lzo=lzo
python-magic=magic python-magnumclient=magnumclient python-manilaclient=manilaclient python-markdown-math=mdx-math
python-masakariclient=masakariclient python-memcached=memcache python-miio=miio python-mimeparse=mimeparse
python-mistralclient=mistralclient python-monascaclient=monascaclient python-mpd2=mpd python-mpv=mpv
python-multipart=multipart python-muranoclient=muranoclient python-musicpd=musicpd
python-networkmanager=networkmanager python-neutronclient=neutronclient python-nmap=nmap
python-novaclient=novaclient python-novnc=novnc python-nubia=nubia python-octaviaclient=octaviaclient python-olm=olm
python-openflow=openflow python-openid-cla=openid-cla python-openid-teams=openid-teams
python-openstackclient=openstackclient python-pam=pampy python-pcl=pcl python-pcre=pcre python-periphery=periphery
python-popcon=popcon python-poppler-qt5=poppler-qt5 python-potr=potr python-prctl=prctl python-pskc=pskc
python-qinlingclient=qinlingclient python-rapidjson=rapidjson python-redmine=redminelib python-rtmidi=rtmidi
python-saharaclient=saharaclient python-sane=sane python-scciclient=scciclient python-seamicroclient=seamicroclient
python-searchlightclient=searchlightclient python-semantic-release=semantic-release python-senlinclient=senlinclient
python-slugify=slugify python-snappy=snappy python-socketio=socketio python-sql=sql python-stdnum=stdnum
python-subunit=subunit python-svipc=svipc python-swiftclient=swiftclient python-tackerclient=tackerclient
python-tds=tds python-tempestconf=tempestconf python-termstyle=termstyle python-tr=tr python-troveclient=troveclient
python-twitter=twitter python-u2flib-server=u2flib-server python-uinput=uinput python-vagrant=vagrant
python-vitrageclient=vitrageclient python-vlc=vlc python-watcher=watcher python-watcherclient=watcherclient
python-xlib=xlib python-yubico=yubico python-zaqarclient=zaqarclient python-zunclient=zunclient
python3-discogs-client=discogs-client python3-lxc=lxc python3-openid=openid python3-saml=onelogin-saml2
pythondialog=dialog pythonqwt=qwt pytidylib=tidylib pytorch-ignite=torch-ignite pytrie=trie
pytroll-schedule=trollsched pytsk3=tsk pytz=tz pyusb=usb pyvcf=vcf pywavelets=pywt pywebdav3=webdav
pywebview=webview pywinrm=winrm pyxdg=xdg pyyaml=yaml pyzmq=zmq qscintilla=pyqt5.qsci readability-lxml=readability
redis-py-cluster=rediscluster redisearch=redisearch-py ren-py=renpy repoze-lru=repoze.lru
repoze-sphinx-autointerface=repoze.sphinx.autointerface repoze-tm2=repoze.tm2 repoze-who=repoze.who
requests-aws=awsauth requirements-parser=requirement-parser rickslab-gpu-utils=gpumodules rosdep=rosdep2
rpi-bme280=bme280 rstcheck-core=rstcheck ruamel-yaml=ruamel.yaml ruamel-yaml-clib=ruamel.yaml.clib
rules=django-rules sabyenc3=sabyenc sagemath-standard=sage sanlock-python=sanlock sarif-om=sarif-python-om
scikit-bio=skbio scikit-build=skbuild scikit-image=skimage scikit-learn=sklearn scikit-misc=skmisc
scruffington=scruffy session-info=sinfo show-in-file-manager=showinfilemanager simpy=simpy3 sip=sipbuild
social-auth-app-django=social-django sphinxcontrib-actdiag=sphinxcontrib.actdiag
sphinxcontrib-apidoc=sphinxcontrib.apidoc sphinxcontrib-applehelp=sphinxcontrib.applehelp
sphinxcontrib-autoprogram=sphinxcontrib.autoprogram sphinxcontrib-bibtex=sphinxcontrib.bibtex
sphinxcontrib-blockdiag=sphinxcontrib.blockdiag sphinxcontrib-devhelp=sphinxcontrib.devhelp
sphinxcontrib-ditaa=sphinxcontrib.ditaa sphinxcontrib-doxylink=sphinxcontrib.doxylink
sphinxcontrib-htmlhelp=sphinxcontrib.htmlhelp sphinxcontrib-httpdomain=sphinxcontrib.httpdomain
sphinxcontrib-jsmath=sphinxcontrib.jsmath sphinxcontrib-nwdiag=sphinxcontrib.nwdiag
sphinxcontrib-plantuml=sphinxcontrib.plantuml sphinxcontrib-programoutput=sphinxcontrib.programoutput
sphinxcontrib-qthelp=sphinxcontrib.qthelp sphinxcontrib-restbuilder=sphinxcontrib.restbuilder
sphinxcontrib-seqdiag=sphinxcontrib.seqdiag sphinxcontrib-serializinghtml=sphinxcontrib.serializinghtml
sphinxcontrib-spelling=sphinxcontrib.spelling sphinxcontrib-svg2pdfconverter=sphinxcontrib.svg2pdfconverter
sphinxcontrib-trio=sphinxcontrib.trio sphinxcontrib-websupport=sphinxcontrib.websupport
sphinxcontrib-youtube=sphinxcontrib.youtube sqlalchemy-migrate=migrate stomp-py=stomp
straight-plugin=straight.plugin streamdeck=elgato-streamdeck stsci-tools=stsci.tools suds-community=suds
svg-path=svg.path swapper=django-swapper systemd-python=systemd tap-as-a-service=neutron-taas tap-py=tap
td-watson=watson testing-common-database=testing.common.database testing-mysqld=testing.mysqld
testing-postgresql=testing.postgresql tf2-py=tf2 tkintertreectrl=tktreectrl tnetstring3=tnetstring
translate-toolkit=translate u-msgpack-python=u-msgpack ubuntu-dev-tools=ubuntutools uc-micro-py=uc-micro
unittest-xml-reporting=xmlrunner usbrelay-py=usbrelay validate=configobj vcrpy=vcr web-py=webpy
webdavclient3=webdavclient websocket-client=websocket websocket-httpd=websocketd webvtt-py=webvtt
wheezy-template=wheezy.template wsgiproxy2=wsgiproxy wxpython=wxgtk4.0
xstatic-jquery-bootstrap-wizard=xstatic-jquery.bootstrap.wizard
xstatic-jquery-quicksearch=xstatic-jquery.quicksearch xstatic-jquery-tablesorter=xstatic-jquery.tablesorter
xstatic-term-js=xstatic-term.js yanc=nose-yanc yapps2=yapps yara-python=yara yoyo-migrations=yoyo
yubikey-manager=ykman zc-buildout=zc.buildout zc-customdoctests=zc.customdoctests zc-lockfile=zc.lockfile
zope-component=zope.component zope-configuration=zope.configuration zope-deprecation=zope.deprecation
zope-event=zope.event zope-exceptions=zope.exceptions zope-hookable=zope.hookable
zope-i18nmessageid=zope.i18nmessageid zope-interface=zope.interface zope-location=zope.location
zope-proxy=zope.proxy zope-schema=zope.schema zope-security=zope.security zope-testing=zope.testing
zope-testrunner=zope.testrunner
`;

/** By normalised distribution name: 'pyyaml' -> 'python3-yaml'. */
export const DEBIAN_NAMES: ReadonlyMap<string, string> = new Map(
  TABLE.trim()
    .split(/\s+/)
    .map((pair): [string, string] => {
      const [name = '', debian = ''] = pair.split('=');
      return [name, `python3-${debian}`];
    }),
);
